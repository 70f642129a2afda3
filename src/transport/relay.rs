//! A way over TLS for a client in this process that knows TCP alone.
//!
//! For each host there is a port of loopback. What the client sends to it goes to the host over TLS, and what comes
//! back goes to the client. Whoever comes to a port is let through only if the other end of the connection is a socket
//! of this process: nobody else may speak with its certificate. A connection that cannot be made, or ends, ends the
//! client's; why is kept for whoever asks, and said in a line when it changes.
//!
//! The accepting tasks end with the [`Relay`], each connection with either of its ends.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use rustls::ClientConnection;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::{HandshakeError, Stream, own_socket};
use crate::task;

/// A session for a socket to a host of this name, at this address; or why there is none.
pub(crate) type NewSession = dyn Fn(&str, IpAddr) -> Result<ClientConnection, rustls::Error> + Send + Sync;

/// How long a client whose connection was refused waits, so that it does not ask at once again and again.
const REFUSED_PAUSE: Duration = Duration::from_millis(200);
/// How long the last bytes of a client that has gone may take.
const FAREWELL: Duration = Duration::from_secs(1);
/// Pause after a connection that could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Bytes on their way in one direction.
const BUFFER_BYTES: usize = 16 * 1024;

/// See the file's header.
pub(crate) struct Relay {
    addresses: Vec<SocketAddr>,
    shared: Arc<Shared>,
    accepting: Vec<JoinHandle<()>>,
}

struct Shared {
    session: Box<NewSession>,
    /// How long a connection may take to be made.
    patience: Duration,
    /// By host, why the last connection to it came to nothing.
    failures: Mutex<BTreeMap<String, String>>,
    strangers: AtomicU64,
}

struct Host {
    name: String,
    port: u16,
}

impl std::fmt::Debug for Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Relay").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.iter().for_each(JoinHandle::abort);
    }
}

impl Relay {
    /// Opens a port for each of these hosts.
    ///
    /// # Errors
    /// There is no port to be had.
    pub(crate) async fn open(
        hosts: Vec<(String, u16)>,
        session: Box<NewSession>,
        patience: Duration,
    ) -> io::Result<Self> {
        let (failures, strangers) = (Mutex::default(), AtomicU64::new(0));
        let shared = Arc::new(Shared { session, patience, failures, strangers });
        let (mut addresses, mut accepting) = (Vec::new(), Vec::new());
        for (name, port) in hosts {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
            addresses.push(listener.local_addr()?);
            accepting.push(task::spawn(accept(Arc::clone(&shared), Arc::new(Host { name, port }), listener)));
        }
        Ok(Self { addresses, shared, accepting })
    }

    /// Where the client connects to, in the order of the hosts.
    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Why the last connections came to nothing, host by host; `None`: none did.
    pub(crate) fn failure(&self) -> Option<String> {
        let failures = self.shared.failures.lock();
        let shown: Vec<_> = failures.iter().map(|(host, why)| format!("{host}: {why}")).collect();
        (!shown.is_empty()).then(|| shown.join("; "))
    }
}

impl Shared {
    fn on_failure(&self, host: &Host, why: &str) {
        let name = format!("{}:{}", host.name, host.port);
        let before = self.failures.lock().insert(name.clone(), why.to_owned());
        if before.as_deref() != Some(why) {
            warn!(host = name, error = why, "there is no connection over TLS");
        }
    }

    fn on_answer(&self, host: &Host) {
        let name = format!("{}:{}", host.name, host.port);
        if self.failures.lock().remove(&name).is_some() {
            info!(host = name, "there is a connection over TLS again");
        }
    }

    /// Whether the other end is this process; strangers are told of now and then.
    async fn is_ours(&self, host: &Host, from: SocketAddr, to: SocketAddr) -> bool {
        let (SocketAddr::V4(from), SocketAddr::V4(to)) = (from, to) else { return false };
        match task::blocking(move || own_socket::is_ours(from, to)).await {
            Ok(true) => true,
            Ok(false) => {
                self.on_stranger(from);
                false
            }
            Err(error) => {
                self.on_failure(host, &format!("whose connection comes cannot be read from /proc: {error}"));
                false
            }
        }
    }

    fn on_stranger(&self, from: SocketAddrV4) {
        let count = self.strangers.fetch_add(1, Ordering::Relaxed) + 1;
        // Ever more seldom: anybody on this machine may come.
        if count.is_power_of_two() {
            warn!(%from, count, "another process came to a way over TLS that is not its own, and was sent away");
        }
    }

    async fn connect(&self, host: &Host) -> Result<Stream, HandshakeError> {
        let socket = TcpStream::connect((host.name.as_str(), host.port)).await?;
        socket.set_nodelay(true)?;
        let session = (self.session)(&host.name, socket.peer_addr()?.ip()).map_err(HandshakeError::Refused)?;
        Stream::connect_as(socket, session).await
    }
}

async fn accept(shared: Arc<Shared>, host: Arc<Host>, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((client, from)) => drop(task::spawn(serve(Arc::clone(&shared), Arc::clone(&host), client, from))),
            Err(error) => {
                shared.on_failure(&host, &format!("the way to it cannot be entered: {error}"));
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(shared: Arc<Shared>, host: Arc<Host>, client: TcpStream, from: SocketAddr) {
    let Ok(here) = client.local_addr() else { return };
    if !shared.is_ours(&host, from, here).await {
        return;
    }
    let server = match tokio::time::timeout(shared.patience, shared.connect(&host)).await {
        Ok(Ok(server)) => server,
        Ok(Err(HandshakeError::Io(error))) => return shared.on_failure(&host, &error.to_string()),
        Ok(Err(HandshakeError::Refused(error))) => {
            shared.on_failure(&host, &format!("SSL handshake failed: {error}"));
            return tokio::time::sleep(REFUSED_PAUSE).await;
        }
        Err(_) => return shared.on_failure(&host, &format!("no connection in {:?}", shared.patience)),
    };
    client.set_nodelay(true).ok();
    let mut pump = Pump::new(client, server);
    let ended = std::future::poll_fn(|cx| pump.poll(cx, || shared.on_answer(&host))).await;
    if !pump.answered {
        // Over TLS 1.3 a server refuses a certificate only now.
        let why =
            ended.map_or_else(|error| error.to_string(), |()| "it closed the connection without an answer".into());
        shared.on_failure(&host, &why);
        return tokio::time::sleep(REFUSED_PAUSE).await;
    }
    // The client's last request may still be here. Who does not take it any more is gone.
    tokio::time::timeout(FAREWELL, pump.server.flush()).await.ok();
}

/// Bytes from one end to the other.
struct Flow {
    buffer: Box<[u8]>,
    from: usize,
    to: usize,
}

impl Flow {
    fn new() -> Self {
        Self { buffer: vec![0; BUFFER_BYTES].into_boxed_slice(), from: 0, to: 0 }
    }

    fn is_empty(&self) -> bool {
        self.from == self.to
    }

    /// Reads once; `0`: the end.
    fn poll_fill<R: AsyncRead + Unpin>(&mut self, cx: &mut Context<'_>, end: &mut R) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(&mut self.buffer);
        let polled = Pin::new(end).poll_read(cx, &mut buffer);
        let filled = buffer.filled().len();
        polled.map_ok(|()| {
            (self.from, self.to) = (0, filled);
            filled
        })
    }
}

struct Pump {
    client: TcpStream,
    server: Stream,
    up: Flow,
    down: Flow,
    /// Whether the server has ever said something.
    answered: bool,
}

impl Pump {
    fn new(client: TcpStream, server: Stream) -> Self {
        Self { client, server, up: Flow::new(), down: Flow::new(), answered: false }
    }

    /// Both directions, until either end is at its end; what the other had sent has been passed on by then.
    fn poll(&mut self, cx: &mut Context<'_>, mut on_answer: impl FnMut()) -> Poll<io::Result<()>> {
        loop {
            let mut moved = false;
            if self.up.is_empty()
                && let Poll::Ready(read) = self.up.poll_fill(cx, &mut self.client)
            {
                if read? == 0 {
                    return Poll::Ready(Ok(()));
                }
                moved = true;
            }
            if !self.up.is_empty() {
                if let Poll::Ready(written) = self.server.poll_write(cx, &self.up.buffer[self.up.from..self.up.to]) {
                    self.up.from += written?;
                    moved = true;
                }
            } else if let Poll::Ready(Err(error)) = self.server.poll_flush(cx) {
                return Poll::Ready(Err(error));
            }
            if self.down.is_empty()
                && let Poll::Ready(read) = self.down.poll_fill(cx, &mut self.server)
            {
                if read? == 0 {
                    return Poll::Ready(Ok(()));
                }
                moved = true;
                if !std::mem::replace(&mut self.answered, true) {
                    on_answer();
                }
            }
            if !self.down.is_empty() {
                let rest = &self.down.buffer[self.down.from..self.down.to];
                if let Poll::Ready(written) = Pin::new(&mut self.client).poll_write(cx, rest) {
                    self.down.from += written?;
                    moved = true;
                }
            }
            if !moved {
                return Poll::Pending;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::security::tls::TlsListener;
    use crate::security::tls::testing::{self, Authority};
    use crate::security::tls::zookeeper::TowardsZookeeper;

    /// A server that says back what it hears, and says how many came; and a relay to it that trusts this authority.
    async fn world(of_server: &Authority, trusted: &Authority) -> (Relay, Arc<AtomicU64>) {
        let settings = testing::with(&of_server.issue("zoo", &["127.0.0.1"]), &[]);
        let server = TlsListener::new(settings, false).expect("opens").server();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let at = listener.local_addr().expect("bound");
        let came = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&came);
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.expect("accepted");
                counted.fetch_add(1, Ordering::Relaxed);
                let server = Arc::clone(&server);
                tokio::spawn(async move {
                    let Ok(mut stream) = Stream::accept(socket, server).await else { return };
                    let mut bytes = vec![0; 10_000];
                    while let Ok(read @ 1..) = stream.read(&mut bytes).await {
                        stream.write_all(&bytes[..read]).await.expect("written");
                    }
                });
            }
        });
        let mut own = testing::settings("ZooKeeper");
        own.stores.truststore_certificates = Some(crate::config::Secret::new(trusted.pem.clone()));
        let towards = TowardsZookeeper::open(&own).expect("opens");
        let session = Box::new(move |host: &str, address| towards.session(host, address));
        let hosts = vec![("127.0.0.1".to_owned(), at.port())];
        (Relay::open(hosts, session, Duration::from_secs(20)).await.expect("opens"), came)
    }

    #[tokio::test]
    async fn bytes_go_both_ways_and_an_end_is_passed_on() {
        let authority = Authority::new("authority");
        let (relay, _) = world(&authority, &authority).await;
        let client = TcpStream::connect(relay.addresses()[0]).await.expect("connected");
        let (mut reader, mut writer) = client.into_split();
        let sent: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
        let mut got = vec![0; sent.len()];
        // More than all buffers on the way hold: neither direction may wait for the other.
        let (written, read) = tokio::join!(writer.write_all(&sent), reader.read_exact(&mut got));
        written.expect("written");
        read.expect("read");
        assert!(got == sent && relay.failure().is_none());
        let mut whole = reader.reunite(writer).expect("of one socket");
        whole.shutdown().await.expect("shut");
        assert_eq!(whole.read(&mut [0; 1]).await.expect("an end"), 0);
    }

    #[tokio::test]
    async fn why_there_is_no_connection_is_told() {
        let (relay, _) = world(&Authority::new("theirs"), &Authority::new("ours")).await;
        let mut client = TcpStream::connect(relay.addresses()[0]).await.expect("connected");
        assert_eq!(client.read(&mut [0; 1]).await.expect("an end"), 0);
        let why = relay.failure().expect("it failed");
        assert!(why.starts_with("127.0.0.1:") && why.contains("SSL handshake failed"), "{why}");
        assert!(why.contains("UnknownIssuer"), "{why}");
    }

    #[tokio::test]
    async fn nobody_else_gets_through() {
        let authority = Authority::new("authority");
        let (relay, came) = world(&authority, &authority).await;
        let port = relay.addresses()[0].port();
        let script = format!("exec 3<>/dev/tcp/127.0.0.1/{port}; echo hello >&3; read -r line <&3; echo \"[$line]\"");
        let mut other = tokio::process::Command::new("bash");
        let other = other.args(["-c", &script]).stdin(Stdio::null()).output().await.expect("bash");
        assert_eq!(String::from_utf8_lossy(&other.stdout).trim(), "[]");
        assert_eq!((came.load(Ordering::Relaxed), relay.shared.strangers.load(Ordering::Relaxed)), (0, 1));
        let mut own = TcpStream::connect(("127.0.0.1", port)).await.expect("connected");
        own.write_all(b"hello").await.expect("written");
        let mut answer = [0; 5];
        own.read_exact(&mut answer).await.expect("read");
        assert_eq!((&answer, came.load(Ordering::Relaxed)), (b"hello", 1));
    }
}
