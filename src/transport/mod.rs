//! The bytes of a connection, as they are or over TLS, on either side.
//!
//! One enum, so that plain bytes cost a match and no more: no dynamic dispatch, no copy, no buffer. Whom to trust and
//! what to present is decided elsewhere (`security::tls`); what the bytes mean, too. [`relay`] is a way over TLS for a
//! client that knows TCP alone.

mod congestion;
mod low_water;
mod out_queue;
mod own_socket;
pub(crate) mod relay;
#[cfg(test)]
mod tests;
mod tls;

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::FutureExt;
use rustix::net::{SendAncillaryBuffer, SendFlags};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection};
use socket2::SockRef;
use tokio::io::{AsyncRead, Interest, ReadBuf};
use tokio::net::TcpStream;

pub(crate) use self::congestion::Congestion;
pub(crate) use self::tls::HandshakeError;
use self::tls::Tls;
use crate::types::place::FilePiece;
use crate::wire::frame::Readable;

/// A connected socket. Dropped, it tells the other side that nothing more comes.
#[derive(Debug)]
pub(crate) enum Stream {
    Plain(TcpStream),
    /// On the heap: a plain connection does not pay for it.
    Tls(Box<Tls>),
}

impl Stream {
    /// The side that was connected to. Bounded memory; for as long as the caller waits.
    ///
    /// # Errors
    /// The handshake came to no end, or to one that is not allowed.
    pub(crate) async fn accept(socket: TcpStream, config: Arc<ServerConfig>) -> Result<Self, HandshakeError> {
        let session = ServerConnection::new(config).map_err(HandshakeError::Refused)?;
        Self::shake_hands(socket, Connection::Server(session)).await
    }

    /// The side that connected, to `host`.
    ///
    /// # Errors
    /// As [`Self::accept`]; also a host that is neither a name nor an address.
    pub(crate) async fn connect(
        socket: TcpStream,
        config: Arc<ClientConfig>,
        host: &str,
    ) -> Result<Self, HandshakeError> {
        let refused = |_| HandshakeError::Refused(rustls::Error::General(format!("{host} is no name of a host")));
        let host = ServerName::try_from(host.to_owned()).map_err(refused)?;
        let session = ClientConnection::new(config, host).map_err(HandshakeError::Refused)?;
        Self::connect_as(socket, session).await
    }

    /// The side that connected, with a session that it has.
    ///
    /// # Errors
    /// As [`Self::accept`].
    pub(crate) async fn connect_as(socket: TcpStream, session: ClientConnection) -> Result<Self, HandshakeError> {
        Self::shake_hands(socket, Connection::Client(session)).await
    }

    async fn shake_hands(socket: TcpStream, session: Connection) -> Result<Self, HandshakeError> {
        let mut tls = Box::new(Tls::new(socket, session));
        tls.shake_hands().await?;
        Ok(Self::Tls(tls))
    }

    /// What the other side has shown; `None`: nothing, or it was not asked.
    pub(crate) fn certificates(&self) -> Option<&[CertificateDer<'static>]> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(tls) => tls.certificates(),
        }
    }

    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(tls) => tls.socket(),
        }
    }

    /// Takes as many of these bytes as it can without waiting. Over TLS they may still be here afterwards, see
    /// [`Self::has_unsent`].
    ///
    /// # Errors
    /// `WouldBlock`: none can be taken now. Or the connection is broken.
    pub(crate) fn try_write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => write_plain(socket, slices, SendFlags::empty()),
            Self::Tls(tls) => tls.try_write_vectored(slices),
        }
    }

    /// As [`Self::try_write_vectored`], where more follows at once: the socket may wait for that before it sends a
    /// small part.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn try_write_before_more(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => write_plain(socket, slices, SendFlags::MORE),
            Self::Tls(tls) => tls.try_write_vectored(slices),
        }
    }

    /// Whether [`Self::try_send_file`] may be called: bytes go to the socket as they are.
    pub(crate) fn sends_files(&self) -> bool {
        matches!(self, Self::Plain(_))
    }

    /// Has the kernel send as much of a file as the socket takes without waiting, straight from the page cache.
    ///
    /// # Errors
    /// `WouldBlock`: none can be taken now. `Unsupported`, `InvalidInput`: not this file's, or not over TLS. Or the
    /// file cannot be read, or the connection is broken.
    pub(crate) fn try_send_file(&mut self, piece: FilePiece<'_>) -> io::Result<usize> {
        let Self::Plain(socket) = self else { return Err(io::ErrorKind::Unsupported.into()) };
        let mut taken = 0;
        let sent = socket.try_io(Interest::WRITABLE, || {
            // A call that takes less has met a full socket or the end of what can be read: the next one says which.
            while taken < piece.bytes {
                let mut at = piece.start + taken as u64;
                match rustix::fs::sendfile(&*socket, piece.file, Some(&mut at), piece.bytes - taken) {
                    Ok(0) => break,
                    Ok(bytes) => taken += bytes,
                    Err(rustix::io::Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(())
        });
        if taken > 0 { Ok(taken) } else { sent.map(|()| 0) }
    }

    /// Whether bytes that were taken are not in the socket yet.
    pub(crate) fn has_unsent(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(tls) => tls.has_unsent(),
        }
    }

    /// Has the kernel hold so many bytes that the other side has not taken, and as many again for what it needs
    /// besides. What it holds already stays.
    ///
    /// # Errors
    /// It refuses the size, or the connection is broken.
    pub(crate) fn set_send_buffer_bytes(&self, bytes: usize) -> io::Result<()> {
        SockRef::from(self.socket()).set_send_buffer_size(bytes)
    }

    /// Tells the other side that nothing more comes, once it has what was sent.
    pub(crate) fn shut_down(&self) {
        // A peer that is gone already is as good as told.
        SockRef::from(self.socket()).shutdown(std::net::Shutdown::Write).ok();
    }

    /// Has the kernel forget, as soon as this is dropped, what the other side has not taken.
    ///
    /// # Errors
    /// It refuses, or the connection is broken.
    pub(crate) fn forget_waiting(&self) -> io::Result<()> {
        SockRef::from(self.socket()).set_linger(Some(std::time::Duration::ZERO))
    }

    /// How much of what was sent waits in the kernel, because the other side has not acknowledged it. What is
    /// acknowledged lies in the kernel there, or was read. 0 where the system does not tell, and where the connection
    /// is no more: a socket that was reset goes on telling what waited.
    pub(crate) fn waiting_bytes(&self) -> usize {
        let socket = self.socket();
        if socket.peer_addr().is_err() { 0 } else { out_queue::bytes(socket).unwrap_or(0) }
    }

    /// Waits until something can be taken, after [`Self::try_write_vectored`] did not take all. Cancellation-safe.
    ///
    /// # Errors
    /// The connection is broken.
    pub(crate) async fn writable(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.writable().await,
            Self::Tls(tls) => tls.flush().await,
        }
    }

    /// As [`Self::try_write_vectored`], and waits until some can be taken. Cancellation-safe.
    ///
    /// # Errors
    /// The connection is broken.
    pub(crate) async fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        loop {
            match self.try_write_vectored(slices) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.socket().writable().await?,
                written => return written,
            }
        }
    }

    /// As [`Self::write_vectored`], polled.
    ///
    /// # Errors
    /// The connection is broken.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            match self.try_write_vectored(&[IoSlice::new(bytes)]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.socket().poll_write_ready(cx))?;
                }
                written => return Poll::Ready(written),
            }
        }
    }

    /// As [`Self::flush`], polled.
    ///
    /// # Errors
    /// The connection is broken.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.has_unsent() {
            ready!(self.poll_write(cx, &[]))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Waits until all that was taken is in the socket. Cancellation-safe.
    ///
    /// # Errors
    /// The connection is broken.
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(tls) => tls.flush().await,
        }
    }

    /// Writes all of it.
    ///
    /// # Errors
    /// The connection is broken.
    pub(crate) async fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.write_vectored(&[IoSlice::new(bytes)]).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                written => bytes = &bytes[written..],
            }
        }
        self.flush().await
    }

    /// Whether the other side has closed the connection, as far as the socket knows without reading.
    pub(crate) fn is_hung_up(&self) -> bool {
        let ready = self.socket().ready(Interest::READABLE).now_or_never();
        matches!(ready, Some(Ok(ready)) if ready.is_read_closed())
    }

    /// Whether nothing came that was not read: neither bytes nor an end. What TLS says besides data is taken in.
    pub(crate) fn is_quiet(&mut self) -> bool {
        match self {
            Self::Plain(socket) => {
                matches!(socket.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
            }
            Self::Tls(tls) => tls.is_quiet(),
        }
    }
}

/// A socket that does not take all is full: so it is noted, and whoever waits for it is not woken before it has room.
fn write_plain(socket: &TcpStream, slices: &[IoSlice<'_>], flags: SendFlags) -> io::Result<usize> {
    let offered: usize = slices.iter().map(|slice| slice.len()).sum();
    let mut taken = 0;
    let written = socket.try_io(Interest::WRITABLE, || {
        let flags = flags | SendFlags::NOSIGNAL;
        taken = rustix::net::sendmsg(socket, slices, &mut SendAncillaryBuffer::default(), flags)?;
        if taken < offered { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    });
    if taken > 0 { Ok(taken) } else { written.map(|()| 0) }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, buf),
            Self::Tls(tls) => tls.poll_read(cx, buf),
        }
    }
}

impl Readable for Stream {
    fn want(&mut self, bytes: usize) {
        let (socket, bytes) = match self {
            Self::Plain(socket) => (&*socket, bytes),
            Self::Tls(tls) => (tls.socket(), tls::wanted_of_socket(bytes)),
        };
        // A wish: without it there are more wakes.
        low_water::set(socket, bytes).ok();
    }

    async fn ready(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.readable().await,
            Self::Tls(tls) => tls.ready().await,
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Self::Tls(tls) = self {
            tls.say_goodbye();
        }
        self.shut_down();
    }
}
