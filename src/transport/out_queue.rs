//! `SIOCOUTQ`: how much of what was sent the other side has not acknowledged.
#![allow(unsafe_code, reason = "one call of ioctl, which no crate wraps for this request; it says why it is sound")]

use std::io;
use std::os::fd::AsRawFd as _;

use tokio::net::TcpStream;

/// Bytes that wait in the kernel.
///
/// # Errors
/// The system does not tell.
pub(super) fn bytes(socket: &TcpStream) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open as long as the socket is borrowed. The request (`SIOCOUTQ`, which is the same
    // number) writes one int, which outlives the call.
    let outcome = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if outcome == 0 { Ok(usize::try_from(bytes).unwrap_or(0)) } else { Err(io::Error::last_os_error()) }
}
