//! What a configuration takes from the machine: its name and its limits.
//!
//! Asked once, by `main`, and passed in, so that everything else here is a function of its arguments.

/// What the configuration needs to know of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Told to clients where a listener names no host.
    pub host_name: String,
    pub memory_bytes: u64,
    /// Files and sockets this process may open.
    pub file_descriptors: u64,
}

impl Machine {
    /// This machine. A host name that it could not resolve itself would help no client: then it is `localhost`.
    pub fn this() -> Self {
        let memory_bytes = {
            let info = rustix::system::sysinfo();
            info.totalram as u64 * u64::from(info.mem_unit)
        };
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        Self { host_name: host_name(), memory_bytes, file_descriptors: limit.current.unwrap_or(u64::MAX) }
    }

    /// A small machine that is the same everywhere.
    #[cfg(test)]
    pub(crate) fn for_test() -> Self {
        Self { host_name: "this.host".into(), memory_bytes: 1 << 30, file_descriptors: 1000 }
    }
}

fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    // The usual case without a resolver, which may be slow to say that it knows nothing.
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    let entries = hosts.lines().map(|line| line.split('#').next().unwrap_or_default());
    let is_known = entries.flat_map(|entry| entry.split_whitespace().skip(1)).any(|known| known == name);
    let resolves = || std::net::ToSocketAddrs::to_socket_addrs(&(name.as_str(), 0)).is_ok();
    if is_known || resolves() { name } else { "localhost".into() }
}
