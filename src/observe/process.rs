//! Limits of this process, and what it uses.

use std::fs;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// With fewer file descriptors a broker stops in the middle of its work, so it does not start.
pub const FILE_DESCRIPTORS_MIN: u64 = 256;

/// Raises the soft limit on file descriptors to the hard one and returns what holds then; `u64::MAX`: no limit.
///
/// # Errors
/// In one line: fewer than [`FILE_DESCRIPTORS_MIN`] remain.
pub fn raise_file_descriptors() -> Result<u64, String> {
    let limit = getrlimit(Resource::Nofile);
    // A system may refuse "unlimited"; what holds afterwards decides, not whether the call succeeded.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let now = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    if now < FILE_DESCRIPTORS_MIN {
        return Err(format!(
            "only {now} file descriptors may be open (ulimit -n), at least {FILE_DESCRIPTORS_MIN} are needed"
        ));
    }
    Ok(now)
}

/// What the process uses at one moment, as Linux tells it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Usage {
    pub(super) cpu_seconds: f64,
    pub(super) resident_bytes: u64,
    pub(super) virtual_bytes: u64,
    pub(super) threads: u64,
    /// `None`: they cannot be listed.
    pub(super) open_files: Option<u64>,
    /// `None`: there is no limit.
    pub(super) open_files_max: Option<u64>,
    /// Since 1970; `None`: the machine does not say when it booted.
    pub(super) started_at_seconds: Option<f64>,
}

/// What this process uses; `None` where `/proc` does not say.
pub(super) fn usage() -> Option<Usage> {
    let booted = fs::read_to_string("/proc/stat").ok().and_then(|stat| {
        let line = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
        line.trim().parse::<f64>().ok()
    });
    let stat = Stat::parse(&fs::read_to_string("/proc/self/stat").ok()?)?;
    let ticks = clock_ticks_per_second() as f64;
    // The listing holds one itself.
    let open_files = fs::read_dir("/proc/self/fd").ok().map(|files| (files.count() as u64).saturating_sub(1));
    Some(Usage {
        cpu_seconds: (stat.user_ticks + stat.system_ticks) as f64 / ticks,
        resident_bytes: stat.resident_pages * page_size() as u64,
        virtual_bytes: stat.virtual_bytes,
        threads: stat.threads,
        open_files,
        open_files_max: getrlimit(Resource::Nofile).current,
        started_at_seconds: booted.map(|booted| booted + stat.started_ticks as f64 / ticks),
    })
}

/// Fields of `/proc/self/stat`. Source: proc_pid_stat(5).
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    user_ticks: u64,
    system_ticks: u64,
    threads: u64,
    started_ticks: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The name of the process may have blanks and brackets in it. What follows begins with field 3.
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse().ok();
        Some(Self {
            user_ticks: field(14)?,
            system_ticks: field(15)?,
            threads: field(20)?,
            started_ticks: field(22)?,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_an_odd_name_is_read() {
        let text = "7 (a b) c) S 1 7 7 0 -1 4194560 88 0 0 0 12 34 0 0 20 0 5 0 600 7000 80 18446744073709551615 1 1";
        let stat = Stat {
            user_ticks: 12,
            system_ticks: 34,
            threads: 5,
            started_ticks: 600,
            virtual_bytes: 7000,
            resident_pages: 80,
        };
        assert_eq!(Stat::parse(text), Some(stat));
        for wrong in ["", "7 (a", "7 (a) S 1 2 3", "7 (a) S 1 7 7 0 -1 4194560 88 0 0 0 x 34 0 0 20 0 5 0 600 7000 80"]
        {
            assert_eq!(Stat::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn this_process_uses_something() {
        let usage = usage().expect("Linux tells");
        assert!(usage.resident_bytes > 1 << 20 && usage.virtual_bytes >= usage.resident_bytes && usage.threads > 0);
        assert!(usage.open_files.is_some_and(|files| files >= 3));
        assert!(usage.started_at_seconds.is_some_and(|at| at > 1.6e9));
    }

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let now = raise_file_descriptors().expect("a test machine allows enough");
        assert_eq!(Some(now).filter(|now| *now != u64::MAX), getrlimit(Resource::Nofile).maximum);
    }
}
