//! Which congestion control a connection has: none that paces, where both ends are on this machine.
//!
//! Where the system's default is BBR the kernel has a timer for each connection, and to set it costs a virtual machine
//! more than to send: a third of a replay's CPU time (measured: 0.26 and 0.17 CPU s/GiB in turn). Within a machine no
//! queue is on the way that pacing could keep short. A socket that has ever had BBR is paced for good, whatever it is
//! given later (Linux, `sk_pacing_status`), so the listening socket has to go without, and a connection from another
//! machine is given the default back. Best effort throughout: what the system does not let be set stays as it is.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;

use rustix::net::sockopt;
use socket2::{Domain, Socket, Type};
use tokio::net::TcpStream;
use tracing::debug;

/// Part of every kernel, and allowed to everybody.
const UNPACED: &str = "reno";

/// The system's default, if it is one that paces.
#[derive(Debug)]
pub(crate) struct Congestion(Option<String>);

impl Congestion {
    pub(crate) fn of_system() -> Self {
        let name =
            Socket::new(Domain::IPV4, Type::STREAM, None).and_then(|socket| Ok(sockopt::tcp_congestion(socket)?));
        Self(name.ok().filter(|name| name.starts_with("bbr")))
    }

    /// For a socket that is to listen: those that it accepts are not paced.
    pub(crate) fn prepare_listener(&self, socket: impl AsFd) {
        if self.0.is_some()
            && let Err(error) = sockopt::set_tcp_congestion(socket, UNPACED)
        {
            debug!(%error, "connections within this machine are paced");
        }
    }

    /// For one that such a socket has accepted from `peer`.
    pub(crate) fn prepare_accepted(&self, socket: &TcpStream, peer: SocketAddr) {
        let Some(usual) = &self.0 else { return };
        if let Err(error) = restore(socket, peer, usual) {
            debug!(%peer, %error, "a connection from another machine does not have the system's congestion control");
        }
    }
}

fn restore(socket: &TcpStream, peer: SocketAddr, usual: &str) -> io::Result<()> {
    let (peer, here) = (peer.ip().to_canonical(), socket.local_addr()?.ip().to_canonical());
    // What a route says goes before what the listening socket has.
    if peer.is_loopback() || peer == here || sockopt::tcp_congestion(socket)? != UNPACED {
        return Ok(());
    }
    Ok(sockopt::set_tcp_congestion(socket, usual)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_of_another_machine_alone_has_the_systems_default() {
        let listener = tokio::net::TcpListener::bind("[::]:0").await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let usual = sockopt::tcp_congestion(&listener).expect("the default");
        let congestion = Congestion(Some(usual.clone()));
        congestion.prepare_listener(&listener);
        assert_eq!(sockopt::tcp_congestion(&listener).expect("what it has"), UNPACED);
        let _client = TcpStream::connect(("127.0.0.1", port)).await.expect("connected");
        let (socket, from) = listener.accept().await.expect("accepted");
        let has = || sockopt::tcp_congestion(&socket).expect("what it has");
        congestion.prepare_accepted(&socket, from);
        assert_eq!(has(), UNPACED, "{from} is on this machine");
        Congestion(None).prepare_accepted(&socket, ([192, 0, 2, 1], 1).into());
        assert_eq!(has(), UNPACED, "nothing to restore");
        congestion.prepare_accepted(&socket, ([192, 0, 2, 1], 1).into());
        assert_eq!(has(), usual);
    }
}
