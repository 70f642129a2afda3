//! Limits of this process.

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let now = raise_file_descriptors().expect("a test machine allows enough");
        assert_eq!(Some(now).filter(|now| *now != u64::MAX), getrlimit(Resource::Nofile).maximum);
    }
}
