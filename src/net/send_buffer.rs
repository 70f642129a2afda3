//! How much a socket takes at once of what the kernel sends from a file.
//!
//! The socket is filled again whenever a third of its send buffer has gone, so with a small one a reader of old records
//! costs a wake-up for every 70 KB. What the kernel sends from a file lies in the page cache and is only lent to the
//! socket, so a quick client may have more there. All such buffers together have a bound, because a client that pauses
//! keeps what is in its own, and the kernel counts it as memory of its sockets. A buffer counts from when it is made
//! large until no more waits in it than usual; a connection that ends before is kept for as long as its client goes on
//! reading.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::idleness::Idleness;
use crate::transport::Stream;
use crate::types::limits::LARGE_SEND_BUFFERS_BYTES_MAX;

/// `socket.send.buffer.bytes` of Kafka, which every stock configuration names. Another size somebody chose: it stays.
const DEFAULT_BYTES: usize = 102_400;

/// Beyond this a reader of old records is not sped up any more.
const LARGE_BYTES: usize = 512 << 10;

/// The kernel takes twice as much as it is asked for, for what it needs besides.
const COUNTED: usize = 2;

/// A client that makes room in this time, so often in a row, takes more than a megabyte a second.
const QUICK: Duration = Duration::from_millis(50);
const QUICK_WAITS: u8 = 4;

/// The same pace where a third of a large buffer has to go.
const QUICK_LARGE: Duration = Duration::from_millis(50 * (LARGE_BYTES / DEFAULT_BYTES) as u64);

/// A client that asks for nothing more in this time rests, and leaves its large buffer to others.
const REST: Duration = Duration::from_secs(1);

/// The large send buffers of a broker.
#[derive(Debug, Clone)]
pub(crate) struct SendBuffers {
    /// `None`: none is enlarged.
    free: Option<Arc<Semaphore>>,
}

impl SendBuffers {
    /// Where sockets begin with Kafka's `socket.send.buffer.bytes`, so many that they are in proportion to
    /// `klamm.reply.bytes`.
    pub(crate) fn new(set_bytes: Option<usize>, reply_bytes: usize) -> Self {
        let count = (reply_bytes / 4).min(LARGE_SEND_BUFFERS_BYTES_MAX) / (COUNTED * LARGE_BYTES);
        let free = (set_bytes == Some(DEFAULT_BYTES)).then(|| Arc::new(Semaphore::new(count)));
        Self { free }
    }

    /// How many may still be enlarged.
    #[cfg(test)]
    pub(super) fn free(&self) -> usize {
        self.free.as_ref().map_or(0, |free| free.available_permits())
    }

    pub(super) fn of_connection(&self) -> SendBuffer {
        SendBuffer { all: self.clone(), state: State::Usual { quick_waits: 0 }, rested_at: None }
    }
}

/// The send buffer of one connection.
#[derive(Debug)]
pub(super) struct SendBuffer {
    all: SendBuffers,
    state: State,
    /// When its client has rested, if nothing happens before.
    rested_at: Option<Instant>,
}

#[derive(Debug)]
enum State {
    /// So many times in a row the client has made room quickly.
    Usual {
        quick_waits: u8,
    },
    Large(OwnedSemaphorePermit),
    /// It is as usual again, and what is in it is perhaps more.
    Falling(OwnedSemaphorePermit),
}

impl SendBuffer {
    /// A reply is about to be sent that comes from files, or does not; most connections need not know.
    pub(super) fn begins(&mut self, stream: &Stream, is_of_files: impl Fn() -> bool) {
        match self.state {
            State::Usual { .. } => {}
            State::Large(_) if is_of_files() => {}
            State::Large(_) => self.lower(stream),
            State::Falling(_) => self.settle(stream),
        }
    }

    /// The client has made some room, after so long; what was sent last the kernel took from a file, or not.
    pub(super) fn made_room(&mut self, stream: &Stream, waited: Duration, is_of_file: bool) {
        match &mut self.state {
            State::Usual { quick_waits } if waited < QUICK && is_of_file => {
                *quick_waits += 1;
                if *quick_waits >= QUICK_WAITS {
                    self.enlarge(stream);
                }
            }
            State::Usual { quick_waits } => *quick_waits = 0,
            State::Large(_) => self.waits(stream, waited),
            State::Falling(_) => self.settle(stream),
        }
    }

    /// The client has made no room for so long.
    pub(super) fn waits(&mut self, stream: &Stream, so_long: Duration) {
        if matches!(self.state, State::Large(_)) && so_long >= QUICK_LARGE {
            self.lower(stream);
        }
    }

    /// A reply has gone out.
    pub(super) fn ends(&mut self) {
        self.rested_at = self.may_hold_more().then(|| Instant::now() + REST);
    }

    /// Whether it is larger than usual, or what waits in it may be.
    pub(super) fn may_hold_more(&self) -> bool {
        !matches!(self.state, State::Usual { .. })
    }

    /// When to call [`Self::rests`].
    pub(super) fn rested_at(&self) -> Option<Instant> {
        self.rested_at
    }

    /// No reply was sent for a while.
    pub(super) fn rests(&mut self, stream: &Stream) {
        self.lower(stream);
        self.ends();
    }

    /// The connection has ended. Keeps its socket, where more waits than usual, for as long as some of it is taken in
    /// each `idle_max`: otherwise the kernel would keep it, beyond any count and for as long as the client likes. To be
    /// dropped at any time.
    pub(super) async fn leaves(mut self, stream: Stream, idle_max: Duration) {
        self.lower(&stream);
        if !self.may_hold_more() {
            return;
        }
        stream.shut_down();
        let mut idleness = Idleness::new(idle_max);
        idleness.waits(stream.waiting_bytes());
        loop {
            tokio::time::sleep(REST).await;
            self.settle(&stream);
            if !self.may_hold_more() {
                return;
            }
            if idleness.is_over(0, stream.waiting_bytes()) {
                // Where that is refused the kernel keeps it, as it does for others.
                stream.forget_waiting().ok();
                return;
            }
        }
    }

    fn enlarge(&mut self, stream: &Stream) {
        self.state = State::Usual { quick_waits: 0 };
        let free = self.all.free.as_ref().and_then(|free| Arc::clone(free).try_acquire_owned().ok());
        // A wish: without it there are more wakes.
        if let Some(permit) = free
            && stream.set_send_buffer_bytes(LARGE_BYTES).is_ok()
        {
            self.state = State::Large(permit);
        }
    }

    fn lower(&mut self, stream: &Stream) {
        match std::mem::replace(&mut self.state, State::Usual { quick_waits: 0 }) {
            State::Large(permit) | State::Falling(permit) => {
                // Where the kernel refuses it the buffer stays large, and is counted so.
                let lowered = stream.set_send_buffer_bytes(DEFAULT_BYTES);
                self.state = if lowered.is_ok() { State::Falling(permit) } else { State::Large(permit) };
            }
            usual @ State::Usual { .. } => self.state = usual,
        }
        self.settle(stream);
    }

    /// Others may have a large one once no more waits here than usual.
    fn settle(&mut self, stream: &Stream) {
        if matches!(self.state, State::Falling(_)) && stream.waiting_bytes() <= COUNTED * DEFAULT_BYTES {
            self.state = State::Usual { quick_waits: 0 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_that_somebody_chose_stays() {
        let free = |set_bytes, reply_bytes| SendBuffers::new(set_bytes, reply_bytes).free();
        assert_eq!(free(Some(DEFAULT_BYTES), 256 << 20), 64);
        assert_eq!(free(Some(DEFAULT_BYTES), usize::MAX), 64);
        assert_eq!(free(Some(DEFAULT_BYTES), 17 << 20), 4);
        assert_eq!([Some(DEFAULT_BYTES - 1), Some(1 << 20), None].map(|bytes| free(bytes, 256 << 20)), [0; 3]);
    }
}
