//! Gives memory back that a burst left free, once it is clear that the next burst does not need it.
//!
//! What a broker needs for a load it needs again for the next one, and memory taken anew is dear: with bursts ten
//! seconds apart produce costs a fifth more CPU if jemalloc gives pages back after ten seconds, its default. So they
//! are kept for two minutes. jemalloc looks at the clock only when somebody allocates; a process that comes to rest
//! after a burst would keep them for good, so it is told to look. (A thread of jemalloc's own can do that as well, but
//! with it the largest buffers stay for longer.)
#![allow(unsafe_code, reason = "calls of mallctl; each says why it is sound")]

use std::ffi::{CStr, CString};
use std::ptr::{self, null_mut};
use std::time::Duration;

use crate::task;

/// A start's needs are its own, and over after so long.
const START: Duration = Duration::from_secs(1);

/// How often is looked for what is due: a twentieth of the free pages at once.
const PERIOD: Duration = Duration::from_secs(6);

/// How long free pages are kept, fewer and fewer of them.
const KEPT_MS: isize = 120_000;

/// Starts giving free memory back for as long as the process runs. The environment's `MALLOC_CONF` wins.
pub fn start_giving_back() {
    if std::env::var_os("MALLOC_CONF").is_none() {
        keep_for(KEPT_MS);
    }
    task::spawn_owner("memory", async {
        tokio::time::sleep(START).await;
        task::blocking(|| call(c"arena.4096.purge")).await;
        loop {
            tokio::time::sleep(PERIOD).await;
            // What is due takes the kernel some milliseconds, and costs next to nothing when there is none.
            task::blocking(|| call(c"arena.4096.decay")).await;
        }
    });
}

/// Does something with all arenas (4096 stands for them).
fn call(name: &CStr) {
    // SAFETY: the name ends in NUL; nothing is read or written. It may be called at any time, and where the process
    // allocates by another allocator it finds nothing to do.
    unsafe { tikv_jemalloc_sys::mallctl(name.as_ptr(), null_mut(), null_mut(), null_mut(), 0) };
}

/// Sets how long free pages are kept, in arenas to come and in those that there are.
fn keep_for(ms: isize) {
    set_kept(c"arenas.dirty_decay_ms", ms);
    for arena in 0..ARENAS_MAX {
        let name = CString::new(format!("arena.{arena}.dirty_decay_ms")).expect("no NUL in it");
        set_kept(&name, ms);
    }
}

/// More than jemalloc makes of its own: four for each core.
const ARENAS_MAX: usize = 256;

fn set_kept(name: &CStr, mut ms: isize) {
    // SAFETY: the new value is a ssize_t, as these names want it, and outlives the call. An arena that there is not is
    // an error that changes nothing.
    unsafe {
        let value = ptr::from_mut(&mut ms).cast();
        tikv_jemalloc_sys::mallctl(name.as_ptr(), null_mut(), null_mut(), value, size_of::<isize>());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn giving_back_can_be_asked_for_at_any_time() {
        call(c"arena.4096.decay");
        call(c"arena.4096.purge");
    }

    #[test]
    fn pages_are_kept_for_as_long_as_is_said() {
        let kept_ms = |name: &CStr| {
            let (mut ms, mut length) = (0_isize, size_of::<isize>());
            // SAFETY: the value is a ssize_t and has room for one.
            unsafe {
                let value = ptr::from_mut(&mut ms).cast();
                tikv_jemalloc_sys::mallctl(name.as_ptr(), value, &mut length, null_mut(), 0);
            }
            ms
        };
        for ms in [70_000, KEPT_MS] {
            keep_for(ms);
            assert_eq!((kept_ms(c"arenas.dirty_decay_ms"), kept_ms(c"arena.0.dirty_decay_ms")), (ms, ms));
        }
    }
}
