//! Which congestion control a connection has: none that paces, where both ends are on this machine.
//!
//! Where the system's default is BBR the kernel has a timer for each connection, and to set it costs a virtual machine
//! more than to send: a third of a replay's CPU time (measured: 0.26 and 0.17 CPU s/GiB in turn). Within a machine no
//! queue is on the way that pacing could keep short. A socket that has ever had BBR is paced for good, whatever it is
//! given later (Linux, `sk_pacing_status`), so the listening socket has to go without, and a connection from another
//! machine is given the default back. Where that is not allowed, everything stays as the system has it.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, SockRef, Socket, Type};
use tokio::net::TcpStream;
use tracing::debug;

/// Part of every kernel.
const UNPACED: &[u8] = b"reno";

/// What a listening socket has, and with it those that it accepts, until they are looked at.
#[derive(Debug)]
pub(crate) enum Congestion {
    Default,
    Unpaced,
}

impl Congestion {
    /// For a socket that is to listen: those that it accepts are not paced.
    pub(crate) fn prepare(listening: &Socket) -> Self {
        match do_not_pace(listening) {
            Ok(congestion) => congestion,
            Err(error) => {
                debug!(%error, "the system's congestion control stays");
                Self::Default
            }
        }
    }

    /// For one that it has accepted from `peer`.
    pub(crate) fn prepare_accepted(&self, socket: &TcpStream, peer: SocketAddr) {
        if matches!(self, Self::Unpaced)
            && let Err(error) = restore(socket, peer)
        {
            debug!(%peer, %error, "a connection from another machine has not the system's congestion control");
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
    Ok(Congestion::Unpaced)
}

fn restore(socket: &TcpStream, peer: SocketAddr) -> io::Result<()> {
    let (peer, here) = (peer.ip().to_canonical(), socket.local_addr()?.ip().to_canonical());
    let socket = SockRef::from(socket);
    // What else it has is from its route.
    if peer.is_loopback() || peer == here || congestion(&socket)? != UNPACED {
        return Ok(());
    }
    // Looked up each time: it may be another one by now.
    let default = congestion(&Socket::new(Domain::IPV4, Type::STREAM, None)?)?;
    if default == UNPACED { Ok(()) } else { socket.set_tcp_congestion(&default) }
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
        SockRef::from(&listener).set_tcp_congestion(UNPACED).expect("set");
        let _client = TcpStream::connect(address).await.expect("connected");
        let (socket, from) = listener.accept().await.expect("accepted");
        Congestion::Unpaced.prepare_accepted(&socket, from);
        assert_eq!(of(&socket), UNPACED, "{from} is on this machine");
        let elsewhere = ([192, 0, 2, 1], 1).into();
        Congestion::Default.prepare_accepted(&socket, elsewhere);
        assert_eq!(of(&socket), UNPACED, "it has what its route says");
        Congestion::Unpaced.prepare_accepted(&socket, elsewhere);
        assert_eq!(of(&socket), default);
    }

    #[test]
    fn a_default_that_paces_is_kept_from_listening_sockets() {
        let listening = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        let before = congestion(&listening).expect("what it has");
        let prepared = Congestion::prepare(&listening);
        let has = congestion(&listening).expect("what it has");
        match prepared {
            Congestion::Unpaced => assert!(before.starts_with(b"bbr") && has == UNPACED, "{before:?}, {has:?}"),
            Congestion::Default => assert_eq!(has, before),
        }
    }
}
