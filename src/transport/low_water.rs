//! `SO_RCVLOWAT`: how many bytes make a socket readable.
#![allow(unsafe_code, reason = "one call of setsockopt, which no crate wraps for this option; it says why it is sound")]

use std::io;
use std::os::fd::AsRawFd as _;

use tokio::net::TcpStream;

/// More is not asked for: the kernel would clamp the window of a socket whose receive buffer has no room for it, and
/// what clients have by default has room for this.
const BYTES_MAX: usize = 64 << 10;

/// From now on the socket is readable once so many bytes have come, at its end, on an error, or once it takes no more.
///
/// # Errors
/// The system has no such option.
pub(super) fn set(socket: &TcpStream, bytes: usize) -> io::Result<()> {
    let bytes = bytes.min(BYTES_MAX) as libc::c_int;
    let length = size_of_val(&bytes) as libc::socklen_t;
    // SAFETY: the descriptor is open as long as the socket is borrowed, and the option takes an int, which outlives the
    // call that reads it.
    let outcome = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVLOWAT, (&raw const bytes).cast(), length)
    };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
