//! Whether the other end of a connection over loopback is a socket of this process, as the kernel tells in `/proc`.

use std::fs;
use std::io;
use std::net::SocketAddrV4;

/// Whether the socket at `from`, connected to `to`, is open here. Blocks: the kernel writes its table of connections.
///
/// # Errors
/// `/proc` cannot be read, so nothing is known.
pub(super) fn is_ours(from: SocketAddrV4, to: SocketAddrV4) -> io::Result<bool> {
    let table = fs::read_to_string("/proc/self/net/tcp")?;
    let Some(inode) = inode(&table, from, to) else { return Ok(false) };
    let wanted = format!("socket:[{inode}]");
    for descriptor in fs::read_dir("/proc/self/fd")? {
        // One that was closed meanwhile has no link any more.
        let link = descriptor.and_then(|descriptor| fs::read_link(descriptor.path()));
        if link.is_ok_and(|link| link.as_os_str() == wanted.as_str()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The number of the socket at `local` that is connected to `remote`. A row of the table is its number, the two
/// addresses, and as the tenth word that of the socket; 0: nobody has it open.
fn inode(table: &str, local: SocketAddrV4, remote: SocketAddrV4) -> Option<&str> {
    // The kernel prints an address as the number that its four bytes are in memory.
    let shown = |at: SocketAddrV4| format!("{:08X}:{:04X}", u32::from_ne_bytes(at.ip().octets()), at.port());
    let (local, remote) = (shown(local), shown(remote));
    table.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let is_it = words.nth(1)? == local && words.next()? == remote;
        words.nth(6).filter(|inode| is_it && *inode != "0")
    })
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::process::{Command, Stdio};

    use super::*;

    fn v4(address: SocketAddr) -> SocketAddrV4 {
        match address {
            SocketAddr::V4(address) => address,
            SocketAddr::V6(address) => panic!("{address} is none"),
        }
    }

    #[test]
    fn a_row_is_found_by_both_of_its_addresses() {
        let row = |inode| {
            format!(
                "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
                 0: 0100007F:0050 0200007F:1F90 01 00000000:00000000 00:00000000 00000000  1000        0 {inode} 1 0\n"
            )
        };
        let at = |text: &str| text.parse().unwrap();
        let (local, remote) = (at("127.0.0.1:80"), at("127.0.0.2:8080"));
        if cfg!(target_endian = "little") {
            assert_eq!(inode(&row(4711), local, remote), Some("4711"));
            assert_eq!(inode(&row(4711), remote, local), None);
            assert_eq!(inode(&row(4711), local, at("127.0.0.2:8081")), None);
            assert_eq!(inode(&row(0), local, remote), None, "it is closed");
        }
    }

    #[test]
    fn a_socket_of_this_process_is_told_from_that_of_another() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let here = v4(listener.local_addr().unwrap());
        let own = TcpStream::connect(here).unwrap();
        let (_accepted, from) = listener.accept().unwrap();
        assert!(is_ours(v4(from), here).unwrap());
        drop(own);
        assert!(!is_ours(v4(from), here).unwrap(), "nobody has it any more");
        let script = format!("exec 3<>/dev/tcp/127.0.0.1/{}; read -r line", here.port());
        let mut other = Command::new("bash").args(["-c", &script]).stdin(Stdio::piped()).spawn().unwrap();
        let (_accepted, from) = listener.accept().unwrap();
        assert!(!is_ours(v4(from), here).unwrap());
        other.kill().unwrap();
        other.wait().unwrap();
    }
}
