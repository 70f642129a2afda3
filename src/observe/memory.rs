//! Gives memory back that a burst left free.
//!
//! jemalloc keeps free pages for ten seconds, in case they are needed again, and looks at the clock when somebody
//! allocates. A process that comes to rest after a burst would keep them for good, so it is told to look. (A thread of
//! jemalloc's own can do that as well, but with it the largest buffers stay for minutes.)
#![allow(unsafe_code, reason = "one call without arguments; it says why it is sound")]

use std::ptr::null_mut;
use std::time::Duration;

use crate::task;

const PERIOD: Duration = Duration::from_secs(1);

/// Starts giving free memory back for as long as the process runs.
pub fn start_giving_back() {
    task::spawn_owner("memory", async {
        loop {
            tokio::time::sleep(PERIOD).await;
            // What is due after a burst takes the kernel some milliseconds.
            task::blocking(decay).await;
        }
    });
}

/// Gives back the pages of all arenas whose time has come; costs next to nothing when there are none.
fn decay() {
    // SAFETY: the name ends in NUL, and this one reads and writes no value. It may be called at any time, and where the
    // process allocates by another allocator it finds nothing to do.
    unsafe { tikv_jemalloc_sys::mallctl(c"arena.4096.decay".as_ptr(), null_mut(), null_mut(), null_mut(), 0) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn giving_back_can_be_asked_for_at_any_time() {
        decay();
        decay();
    }
}
