//! Which congestion control a connection has: none that paces, where a client comes over loopback or from the address
//! that it speaks to.
//!
//! Where the system's default is BBR the kernel sets a timer for each burst of a connection, and on a virtual machine
//! that was a third of a replay's CPU time (measured: 0.26 and 0.17 CPU s/GiB in turn). Within a machine no queue is on
//! the way that pacing could keep short. A socket that has ever had BBR is paced for good, whatever it is given later
//! (Linux, `sk_pacing_status`), so the listening socket has to go without, and a connection from another machine is
//! given the default back. Where that is not allowed, everything stays as the system has it.

use std::io;
use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, SockRef, Socket, Type};
use tokio::net::TcpStream;
use tracing::debug;

/// Part of every kernel.
const UNPACED: &[u8] = b"reno";

/// What a listening socket has, and with it those that it accepts, until they are looked at.
#[derive(Debug)]
pub(crate) enum Congestion {
    Default,
    /// The default paces, and has this name.
    Unpaced(Vec<u8>),
}

impl Congestion {
    /// For a socket that is to listen: those that it accepts are not paced.
    pub(crate) fn prepare(listening: &Socket) -> Self {
        do_not_pace(listening).unwrap_or_else(|error| {
            debug!(%error, "the system's congestion control stays");
            Self::Default
        })
    }

    /// For one that it has accepted from `peer`.
    pub(crate) fn prepare_accepted(&self, socket: &TcpStream, peer: SocketAddr) {
        if let Self::Unpaced(default) = self
            && let Err(error) = restore(socket, peer.ip(), default)
        {
            debug!(%peer, %error, "a connection may lack the system's congestion control");
        }
    }
}

fn do_not_pace(listening: &Socket) -> io::Result<Congestion> {
    let probe = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    let default = congestion(&probe)?;
    if !default.starts_with(b"bbr") {
        return Ok(Congestion::Default);
    }
    // Both ways, before anything depends on them. An administrator may allow fewer, and so may an emulated kernel.
    probe.set_tcp_congestion(UNPACED)?;
    probe.set_tcp_congestion(&default)?;
    listening.set_tcp_congestion(UNPACED)?;
    Ok(Congestion::Unpaced(default))
}

fn restore(socket: &TcpStream, peer: IpAddr, default_then: &[u8]) -> io::Result<()> {
    let is_here = is_here(peer, socket.local_addr()?.ip());
    let socket = SockRef::from(socket);
    // Another one it has from its route; this one, too, if that says so, which nobody can see.
    if is_here || congestion(&socket)? != UNPACED {
        return Ok(());
    }
    // It may have changed. A look takes a descriptor, and there may be none.
    let now = Socket::new(Domain::IPV4, Type::STREAM, None).and_then(|socket| congestion(&socket));
    socket.set_tcp_congestion(now.as_deref().unwrap_or(default_then))
}

/// Whether what comes from `peer` to the address `here` cannot have left this machine.
fn is_here(peer: IpAddr, here: IpAddr) -> bool {
    let peer = peer.to_canonical();
    peer.is_loopback() || peer == here.to_canonical()
}

/// Its name.
fn congestion(socket: &Socket) -> io::Result<Vec<u8>> {
    let mut name = socket.tcp_congestion()?;
    name.truncate(name.iter().position(|byte| *byte == 0).unwrap_or(name.len()));
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_of_another_machine_alone_has_the_systems_default() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let of = |socket: &TcpStream| congestion(&SockRef::from(socket)).expect("what it has");
        let default = congestion(&SockRef::from(&listener)).expect("the default");
        let unpaced = Congestion::Unpaced(b"of another time".into());
        SockRef::from(&listener).set_tcp_congestion(UNPACED).expect("set");
        let _client = TcpStream::connect(address).await.expect("connected");
        let (socket, from) = listener.accept().await.expect("accepted");
        unpaced.prepare_accepted(&socket, from);
        assert_eq!(of(&socket), UNPACED, "{from} is on this machine");
        let elsewhere = ([192, 0, 2, 1], 1).into();
        Congestion::Default.prepare_accepted(&socket, elsewhere);
        assert_eq!(of(&socket), UNPACED, "it has what its route says");
        unpaced.prepare_accepted(&socket, elsewhere);
        assert_eq!(of(&socket), default);
    }

    #[test]
    fn the_machine_is_told_by_both_addresses() {
        for (peer, here, expected) in [
            ("127.0.0.1", "127.0.0.2", true),
            ("::1", "::1", true),
            ("::ffff:127.0.0.1", "::ffff:127.0.0.1", true),
            ("10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1", "::ffff:10.0.0.1", true),
            ("10.0.0.1", "10.0.0.2", false),
            ("fd00::1", "fd00::2", false),
        ] {
            let [peer_ip, here_ip] = [peer, here].map(|ip| ip.parse().expect("an address"));
            assert_eq!(is_here(peer_ip, here_ip), expected, "{peer} to {here}");
        }
    }

    #[test]
    fn a_default_that_paces_is_kept_from_listening_sockets() {
        let [probe, listening] = [(); 2].map(|()| Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket"));
        let default = congestion(&probe).expect("what it has");
        let is_allowed = [UNPACED, &default].iter().all(|name| probe.set_tcp_congestion(name).is_ok());
        let (has, left) = if default.starts_with(b"bbr") && is_allowed { (UNPACED, true) } else { (&*default, false) };
        let prepared = Congestion::prepare(&listening);
        assert_eq!(matches!(prepared, Congestion::Unpaced(_)), left, "{prepared:?}");
        assert_eq!(congestion(&listening).expect("what it has"), has);
    }
}
