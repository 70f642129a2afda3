//! The only place that spawns. A task has a name, and a panic policy: an owner that panics ends the process, because a
//! half-changed state must not go on answering; a request that panics costs its connection alone.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use tracing::error;

/// Exit code of a process whose owner task panicked.
pub(crate) const EXIT_OWNER_PANICKED: i32 = 70;

/// Spawns a task that owns state. A panic ends the process with [`EXIT_OWNER_PANICKED`].
pub(crate) fn spawn_owner<F>(name: &'static str, future: F) -> JoinHandle<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    start(async move {
        let _guard = EndOnPanic(name);
        future.await;
    })
}

/// Does on the calling thread what is an owner's: a panic in it ends the process, as in [`spawn_owner`].
pub(crate) fn as_owner<T>(name: &'static str, work: impl FnOnce() -> T) -> T {
    let _guard = EndOnPanic(name);
    work()
}

struct EndOnPanic(&'static str);

impl Drop for EndOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            error!(task = self.0, "an owner panicked; the process ends so that nothing is answered from torn state");
            std::process::exit(EXIT_OWNER_PANICKED);
        }
    }
}

/// Spawns work whose panic ends nothing else, such as a connection.
pub(crate) fn spawn<T, F>(future: F) -> JoinHandle<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    start(future)
}

fn start<T, F>(future: F) -> JoinHandle<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    #[cfg(test)]
    if let Some(process) = testing::Process::here() {
        return process.spawn(future);
    }
    tokio::spawn(future)
}

/// Runs a call that blocks on the disk on a thread meant for that. A panic in it is passed on to the caller. Once the
/// runtime ends, a call that has not begun never does, and never returns: its caller is dropped with the runtime.
pub(crate) async fn blocking<T, F>(work: F) -> T
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    #[cfg(test)]
    if testing::Process::here().is_some() {
        return work();
    }
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(joined) if joined.is_panic() => std::panic::resume_unwind(joined.into_panic()),
        // Only a runtime that ends aborts it.
        Err(_) => std::future::pending().await,
    }
}

/// Starts a call that blocks on the disk and is not waited for. A panic in it ends nothing else.
pub(crate) fn in_background<F: FnOnce() + Send + 'static>(work: F) {
    #[cfg(test)]
    if let Some(process) = testing::Process::here() {
        // Its end is looked for nowhere.
        return drop(process.spawn(async move { work() }));
    }
    tokio::task::spawn_blocking(work);
}

/// Wakes one of the threads of a runtime, so that it looks what there is to do.
#[derive(Debug)]
pub(crate) struct Nudge(Option<tokio::runtime::Handle>);

impl Nudge {
    /// For the runtime at hand; without one it does nothing.
    pub(crate) fn here() -> Self {
        Self(tokio::runtime::Handle::try_current().ok())
    }

    pub(crate) fn nudge(&self) {
        if let Some(runtime) = &self.0 {
            runtime.spawn(std::future::ready(()));
        }
    }
}

/// Starts an operating system thread that owns state; the panic policy is that of [`spawn_owner`].
pub(crate) fn thread<F>(name: &'static str, body: F) -> std::io::Result<std::thread::JoinHandle<()>>
where
    F: FnOnce() + Send + 'static,
{
    std::thread::Builder::new().name(name.into()).spawn(move || as_owner(name, body))
}

/// Does something on a thread of its own, and waits for it so long and no longer. Blocks. Answers whether it is done;
/// where it is not, it goes on.
///
/// # Errors
/// There is no thread to be had.
pub(crate) fn within(
    name: &'static str,
    patience: Duration,
    body: impl FnOnce() + Send + 'static,
) -> std::io::Result<bool> {
    let (tell, told) = std::sync::mpsc::channel();
    thread(name, move || {
        body();
        // Whoever waited may have gone on.
        tell.send(()).ok();
    })?;
    Ok(told.recv_timeout(patience).is_ok())
}

/// Counts one, such as a waiter for room, until it is dropped.
#[derive(Debug)]
pub(crate) struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    pub(crate) fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
#[path = "task/testing.rs"]
pub(crate) mod testing;

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    /// Found by the table of operations by faults: an owner that had just asked for a blocking call when the broker
    /// had stopped panicked, and the process ended with 70 instead of 0.
    #[test]
    fn a_blocking_call_after_the_end_of_the_runtime_is_no_panic() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("starts");
        let handle = runtime.handle().clone();
        runtime.shutdown_background();
        let _within = handle.enter();
        assert!(blocking(|| ()).now_or_never().is_none(), "it never runs");
    }
}
