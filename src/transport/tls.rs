//! A socket under TLS. Nothing is held while nothing comes: what is read goes through a buffer that lives as long as
//! there is something in it, and what is written is encrypted as the socket takes it, 64 KiB ahead at most.
//!
//! The session alone knows what of a record has come, so a read may take bytes and give none. A handshake takes as
//! many bytes as `rustls` allows, some 64 KiB; how long it may last the caller says.

use std::cell::RefCell;
use std::io::{self, BufRead, IoSlice, Write};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use rustls::pki_types::CertificateDer;
use rustls::{Connection, ProtocolVersion};
use tokio::io::ReadBuf;
use tokio::net::TcpStream;

/// Why there is no connection over TLS.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    /// The socket failed, or the other side went away.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What the other side said is not TLS, or not allowed.
    #[error("{0}")]
    Refused(#[from] rustls::Error),
}

/// A record and its head, the largest there may be.
const RECORD_BYTES_MAX: usize = 16 * 1024 + 2048 + 5;
/// What one read of the socket asks for at least: two records as they mostly are.
const READ_BYTES_MIN: usize = 2 * (16 * 1024 + 256);
/// And at most.
const READ_BYTES_MAX: usize = 128 << 10;
/// An alert of TLS 1.2, fatal, `bad_certificate`, before anything is encrypted. Whoever shows no certificate where one
/// is required is told this, as by Java; `rustls` would say `certificate_required`, which TLS 1.3 alone knows.
const BAD_CERTIFICATE: &[u8] = &[21, 3, 3, 0, 2, 2, 42];
/// While hands are shaken.
const HANDSHAKE_READ_BYTES: usize = 4096;

thread_local! {
    /// What comes from a socket passes through here: memory that is in the core's own cache, and no connection's.
    static PASSING: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES_MAX].into());
}

/// What the socket should wait for if a reader waits for so many bytes: the session may have a part of a record, and
/// nobody knows how much of it.
pub(super) fn wanted_of_socket(bytes: usize) -> usize {
    bytes.saturating_sub(RECORD_BYTES_MAX).max(1)
}

/// See the file's header.
pub(crate) struct Tls {
    socket: TcpStream,
    session: Connection,
    /// From the socket, and not yet in the session, which had more to give than was asked for. Without memory while it
    /// is empty.
    incoming: Bytes,
    /// The socket has come to its end, and the session knows.
    at_end: bool,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tls({:?})", self.socket)
    }
}

impl Tls {
    pub(super) fn new(socket: TcpStream, mut session: Connection) -> Self {
        session.set_buffer_limit(Some(AHEAD_BYTES_MAX));
        Self { socket, session, incoming: Bytes::new(), at_end: false }
    }

    pub(super) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    pub(super) fn certificates(&self) -> Option<&[CertificateDer<'static>]> {
        self.session.peer_certificates()
    }

    /// # Errors
    /// See [`HandshakeError`]; the other side has been told, if it listens.
    pub(super) async fn shake_hands(&mut self) -> Result<(), HandshakeError> {
        while self.session.is_handshaking() {
            self.flush().await?;
            if !self.session.is_handshaking() {
                break;
            }
            self.socket.readable().await?;
            match self.fill(HANDSHAKE_READ_BYTES, &mut ReadBuf::new(&mut [])) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(_) => {}
                Err(HandshakeError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(HandshakeError::Refused(error)) => {
                    match &error {
                        rustls::Error::NoCertificatesPresented if self.is_tls12() => {
                            self.socket.try_write(BAD_CERTIFICATE).ok();
                        }
                        _ => self.say_goodbye(),
                    }
                    return Err(error.into());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(self.flush().await?)
    }

    fn is_tls12(&self) -> bool {
        self.session.protocol_version() == Some(ProtocolVersion::TLSv1_2)
    }

    /// Reads the socket once, so many bytes at most, into the session; what it does not take is kept.
    fn fill(&mut self, bytes: usize, buf: &mut ReadBuf<'_>) -> Result<usize, HandshakeError> {
        PASSING.with_borrow_mut(|passing| {
            let filled = self.socket.try_read(&mut passing[..bytes])?;
            let mut rest = &passing[..filled];
            let taken = self.take_in(&mut rest, buf);
            self.incoming = Bytes::copy_from_slice(rest);
            taken.map(|()| filled)
        })
    }

    /// As [`take_in`](Self::take_in), of what was kept.
    fn take_kept(&mut self, buf: &mut ReadBuf<'_>) -> Result<(), HandshakeError> {
        let kept = std::mem::take(&mut self.incoming);
        let mut rest = &kept[..];
        let taken = self.take_in(&mut rest, buf);
        self.incoming = if rest.is_empty() { Bytes::new() } else { kept.slice_ref(rest) };
        taken
    }

    /// Gives bytes to the session, and what it makes of them to `buf`, until they are all taken or `buf` is full.
    fn take_in(&mut self, incoming: &mut &[u8], buf: &mut ReadBuf<'_>) -> Result<(), HandshakeError> {
        loop {
            while buf.remaining() > 0 && self.take_plain(buf)?.is_some_and(|taken| taken > 0) {}
            if incoming.is_empty() || self.has_plain() {
                return Ok(());
            }
            self.session.read_tls(incoming)?;
            self.session.process_new_packets()?;
        }
    }

    /// Bytes that were decrypted; `None`: there are none now. What is not filled is not touched: it may be as large as
    /// a frame, and is asked for with each read.
    fn take_plain(&mut self, buf: &mut ReadBuf<'_>) -> io::Result<Option<usize>> {
        let mut reader = self.session.reader();
        match reader.fill_buf() {
            Ok(plain) => {
                let taken = plain.len().min(buf.remaining());
                buf.put_slice(&plain[..taken]);
                reader.consume(taken);
                Ok(Some(taken))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        loop {
            match self.take_kept(buf) {
                // It comes again.
                Err(HandshakeError::Io(_)) if buf.filled().len() > before => return Poll::Ready(Ok(())),
                outcome => outcome.map_err(|error| self.given_up(error))?,
            }
            // Plain bytes of which there are none are the end.
            if buf.filled().len() > before || buf.remaining() == 0 || self.at_end || self.has_plain() {
                return Poll::Ready(Ok(()));
            }
            // The other side may have asked for something that is no data: new keys.
            if let Err(error) = self.send_now()
                && error.kind() != io::ErrorKind::WouldBlock
            {
                return Poll::Ready(Err(error));
            }
            ready!(self.socket.poll_read_ready(cx))?;
            // Records are small, and a read is asked for as much as there is.
            match self.fill((buf.remaining() + RECORD_BYTES_MAX).clamp(READ_BYTES_MIN, READ_BYTES_MAX), buf) {
                Ok(0) => {
                    self.at_end = true;
                    // The session tells an end that was announced from one that was not.
                    self.session.read_tls(&mut io::empty())?;
                    self.session.process_new_packets().map_err(invalid)?;
                }
                Ok(_) => {}
                Err(HandshakeError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(self.given_up(error))),
            }
        }
    }

    fn given_up(&mut self, error: HandshakeError) -> io::Error {
        match error {
            HandshakeError::Io(error) => error,
            HandshakeError::Refused(error) => {
                self.say_goodbye();
                invalid(error)
            }
        }
    }

    /// Waits until a read gives something, or the socket has something that may turn out to be.
    pub(super) async fn ready(&mut self) -> io::Result<()> {
        if self.at_end || !self.incoming.is_empty() || self.has_plain() {
            return Ok(());
        }
        self.socket.readable().await
    }

    fn has_plain(&mut self) -> bool {
        self.session.reader().fill_buf().is_ok()
    }

    /// As much of what is encrypted as the socket takes.
    fn send_now(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            if self.session.write_tls(&mut Socket(&self.socket))? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        Ok(())
    }

    pub(super) fn try_write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        // What was taken before goes first, so that no more is held than one call takes.
        self.send_now()?;
        let taken = self.session.writer().write_vectored(slices)?;
        match self.send_now() {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            Ok(()) | Err(_) => Ok(taken),
        }
    }

    pub(super) fn has_unsent(&self) -> bool {
        self.session.wants_write()
    }

    pub(super) async fn flush(&mut self) -> io::Result<()> {
        loop {
            match self.send_now() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.socket.writable().await?,
                sent => return sent,
            }
        }
    }

    pub(super) fn is_quiet(&mut self) -> bool {
        loop {
            if self.at_end || self.has_plain() {
                return false;
            }
            match self.fill(HANDSHAKE_READ_BYTES, &mut ReadBuf::new(&mut [])) {
                Err(HandshakeError::Io(error)) => return error.kind() == io::ErrorKind::WouldBlock,
                Ok(0) | Err(HandshakeError::Refused(_)) => return false,
                Ok(_) => {}
            }
        }
    }

    /// Tells the other side that nothing more comes, or what was wrong, if it can be told at once.
    pub(super) fn say_goodbye(&mut self) {
        if !self.session.is_handshaking() {
            self.session.send_close_notify();
        }
        self.send_now().ok();
    }
}

/// Bytes that are encrypted before the socket has taken them.
const AHEAD_BYTES_MAX: usize = 64 * 1024;

fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// A socket that takes what it can at once.
struct Socket<'a>(&'a TcpStream);

impl Write for Socket<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.try_write(buf)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(bufs)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
