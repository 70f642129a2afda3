//! What a configuration takes from the machine: its name and its limits.
//!
//! Asked once, by `main`, and passed in, so that everything else here is a function of its arguments.

use std::fs;
use std::path::Path;

/// What the configuration needs to know of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Told to clients where a listener names no host.
    pub host_name: String,
    /// Of the machine, or of the container if that may use less.
    pub memory_bytes: u64,
    /// A container may use less than there is.
    pub memory_is_limited: bool,
    /// Its host takes back the pages that are free here (a virtio balloon with free page reporting). A page that was
    /// not used for a while then costs several times what is copied into it.
    pub reports_free_pages: bool,
    /// Files and sockets this process may open.
    pub file_descriptors: u64,
}

impl Machine {
    /// This machine. A host name that it could not resolve itself would help no client: then it is `localhost`.
    pub fn this() -> Self {
        let info = rustix::system::sysinfo();
        let installed = info.totalram as u64 * u64::from(info.mem_unit);
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let allowed = memory_limit(Path::new("/sys/fs/cgroup"), &groups).unwrap_or(u64::MAX);
        let (memory_bytes, memory_is_limited) = (allowed.min(installed), allowed < installed);
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        let file_descriptors = limit.current.unwrap_or(u64::MAX);
        let reports_free_pages = reports_free_pages(Path::new("/sys/bus/virtio/devices"));
        Self { host_name: host_name(), memory_bytes, memory_is_limited, reports_free_pages, file_descriptors }
    }

    /// A small machine that is the same everywhere.
    #[cfg(test)]
    pub(crate) fn for_test() -> Self {
        Self {
            host_name: "this.host".into(),
            memory_bytes: 1 << 30,
            memory_is_limited: false,
            reports_free_pages: false,
            file_descriptors: 1000,
        }
    }
}

/// The least memory that a control group of this process allows, by version 2 of them or 1. `groups` is what
/// `/proc/self/cgroup` holds: a line `hierarchy:controllers:path` for each hierarchy.
fn memory_limit(mounted: &Path, groups: &str) -> Option<u64> {
    let limits = groups.lines().filter_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        let (root, file) = match controllers {
            "" => (mounted.to_owned(), "memory.max"),
            "memory" => (mounted.join("memory"), "memory.limit_in_bytes"),
            _ => return None,
        };
        // A container sees its own group as the root, whatever the path says.
        let group = root.join(path.trim_start_matches('/'));
        let within = group.ancestors().take_while(|above| above.starts_with(&root));
        within.filter_map(|group| fs::read_to_string(group.join(file)).ok()?.trim().parse::<u64>().ok()).min()
    });
    limits.min()
}

/// Whether one of these devices is a balloon (5) that has agreed on free page reporting (feature 5). Each has files
/// `device`, a hexadecimal number, and `features`, a digit for each from 0 on. Source: virtio 1.2, section 5.5.
fn reports_free_pages(devices: &Path) -> bool {
    const BALLOON: u32 = 5;
    const REPORTING: usize = 5;
    let found = fs::read_dir(devices).into_iter().flatten().flatten().map(|entry| entry.path());
    let read = |path: &Path, name: &str| fs::read_to_string(path.join(name)).unwrap_or_default();
    let is_balloon = |path: &Path| {
        let device = read(path, "device");
        u32::from_str_radix(device.trim().trim_start_matches("0x"), 16) == Ok(BALLOON)
    };
    let reports = |path: &Path| read(path, "features").as_bytes().get(REPORTING) == Some(&b'1');
    found.into_iter().any(|path| is_balloon(&path) && reports(&path))
}

fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    // The usual case without a resolver, which may be slow to say that it knows nothing.
    let hosts = fs::read_to_string("/etc/hosts").unwrap_or_default();
    let entries = hosts.lines().map(|line| line.split('#').next().unwrap_or_default());
    let is_known = entries.flat_map(|entry| entry.split_whitespace().skip(1)).any(|known| known == name);
    let resolves = || std::net::ToSocketAddrs::to_socket_addrs(&(name.as_str(), 0)).is_ok();
    if is_known || resolves() { name } else { "localhost".into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_balloon_that_reports_free_pages_is_seen() {
        let root = tempfile::tempdir().expect("a directory");
        let device = |name: &str, device: &str, features: &str| {
            let path = root.path().join(name);
            fs::create_dir_all(&path).expect("made");
            fs::write(path.join("device"), device).expect("written");
            fs::write(path.join("features"), features).expect("written");
        };
        assert!(!reports_free_pages(&root.path().join("none")) && !reports_free_pages(root.path()));
        device("virtio0", "0x0002\n", "0000010000\n");
        assert!(!reports_free_pages(root.path()), "a disk");
        device("virtio1", "0x0005\n", "0110000000\n");
        assert!(!reports_free_pages(root.path()), "it does not report");
        device("virtio1", "0x0005\n", "0110010000\n");
        assert!(reports_free_pages(root.path()));
    }

    #[test]
    fn the_least_limit_of_the_groups_above_holds() {
        let root = tempfile::tempdir().expect("a directory");
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("in the directory")).expect("made");
            fs::write(path, text).expect("written");
        };
        let limit = |groups: &str| memory_limit(root.path(), groups);
        assert_eq!(limit("0::/a/b\n"), None, "no limit anywhere");
        write("a/b/memory.max", "max\n");
        assert_eq!(limit("0::/a/b\n"), None);
        write("a/memory.max", "2000\n");
        assert_eq!(limit("0::/a/b\n"), Some(2000), "of a group above");
        write("memory.max", "1000\n");
        assert_eq!(limit("0::/not/seen/from/here\n"), Some(1000), "in a container");
        write("memory/c/memory.limit_in_bytes", "500\n");
        assert_eq!(limit("5:memory:/c\n4:cpu,cpuacct:/c\n0::/\n"), Some(500), "version 1");
    }
}
