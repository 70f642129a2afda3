//! Notices when a write on one of tokio's threads hangs, and has another of them go on.
//!
//! Whichever of tokio's threads has nothing to do waits for the sockets, and only one of them. When it finds a request
//! and the disk then holds it, the others sleep until something wakes them: no client would be heard meanwhile, nor
//! ZooKeeper. So while such writes come, a thread looks every few milliseconds whether the one it saw last is over.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::task::Nudge;

/// How often a write is looked for; one that lasts for up to twice as long is noticed.
const TICK: Duration = Duration::from_millis(20);
/// Ticks without a write after which the thread sleeps until the next one. Waking it costs less than five ticks do;
/// with fifty, the few writes of a consumer that joins a group had it take an eighth of what the broker used.
const QUIET_TICKS: u32 = 5;

/// Writes on threads that are not the writer's; one at a time, since each holds the writer lock.
#[derive(Debug)]
pub(super) struct Watch {
    nudge: Nudge,
    /// Writes begun and writes ended, counted together: odd while one goes on.
    steps: AtomicU64,
    /// The thread looks, or is about to.
    awake: AtomicBool,
    closing: Mutex<bool>,
    changed: Condvar,
}

impl Watch {
    /// For writes on the threads of the runtime at hand.
    pub(super) fn new() -> Self {
        Self {
            nudge: Nudge::here(),
            steps: AtomicU64::new(0),
            awake: AtomicBool::new(false),
            closing: Mutex::new(false),
            changed: Condvar::new(),
        }
    }

    /// Runs a write under watch.
    pub(super) fn over<T>(&self, write: impl FnOnce() -> T) -> T {
        self.steps.fetch_add(1, Ordering::SeqCst);
        if !self.awake.swap(true, Ordering::SeqCst) {
            let _closing = self.closing.lock();
            self.changed.notify_one();
        }
        let written = write();
        self.steps.fetch_add(1, Ordering::SeqCst);
        written
    }

    /// Lets the thread end.
    pub(super) fn close(&self) {
        *self.closing.lock() = true;
        self.changed.notify_one();
    }

    /// Body of the thread.
    pub(super) fn run(&self) {
        while self.sleeps() {
            let (mut seen, mut quiet) = (self.steps.load(Ordering::SeqCst), 0);
            while quiet < QUIET_TICKS {
                if self.closes_within(TICK) {
                    return;
                }
                let steps = self.steps.load(Ordering::SeqCst);
                let writing = steps % 2 == 1;
                if writing && steps == seen {
                    self.nudge.nudge();
                }
                quiet = if writing || steps != seen { 0 } else { quiet + 1 };
                seen = steps;
            }
            self.awake.store(false, Ordering::SeqCst);
            if self.steps.load(Ordering::SeqCst) != seen {
                // It found the thread awake, and relies on it.
                self.awake.store(true, Ordering::SeqCst);
            }
        }
    }

    /// Waits for a write; false: closing.
    fn sleeps(&self) -> bool {
        let mut closing = self.closing.lock();
        self.changed.wait_while(&mut closing, |closing| !*closing && !self.awake.load(Ordering::SeqCst));
        !*closing
    }

    fn closes_within(&self, tick: Duration) -> bool {
        let mut closing = self.closing.lock();
        self.changed.wait_while_for(&mut closing, |closing| !*closing, tick);
        *closing
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc;

    use super::*;

    /// What arrives at the listener is noticed by whichever thread waits for the sockets.
    async fn accept(listener: std::net::TcpListener) {
        listener.set_nonblocking(true).expect("non-blocking");
        let listener = tokio::net::TcpListener::from_std(listener).expect("listener");
        listener.accept().await.expect("accepts");
    }

    #[test]
    fn while_a_write_hangs_another_thread_hears_the_sockets() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("a runtime of two threads");
        let watch = Arc::new(runtime.block_on(async { Watch::new() }));
        let (its, thread_of) = (Arc::clone(&watch), Arc::clone(&watch));
        let thread = std::thread::spawn(move || thread_of.run());
        let listeners = [0, 1].map(|_| std::net::TcpListener::bind("127.0.0.1:0").expect("bind"));
        let [writes, others] = listeners.each_ref().map(|listener| listener.local_addr().expect("address"));
        let [for_write, for_others] = listeners;
        let (release, held) = mpsc::channel::<()>();
        let (began, begun) = mpsc::channel();
        let (tell, heard) = mpsc::channel();
        runtime.spawn(async move {
            accept(for_write).await;
            its.over(|| {
                began.send(()).expect("the test listens");
                held.recv().expect("the test lets go");
            });
        });
        runtime.spawn(async move {
            accept(for_others).await;
            tell.send(()).expect("the test listens");
        });
        std::thread::sleep(Duration::from_millis(50));
        let _write = std::net::TcpStream::connect(writes).expect("connect");
        begun.recv().expect("the write hangs");
        let _other = std::net::TcpStream::connect(others).expect("connect");
        let outcome = heard.recv_timeout(Duration::from_secs(10));
        release.send(()).expect("held");
        watch.close();
        thread.join().expect("no panic");
        outcome.expect("heard while the write hangs");
    }
}
