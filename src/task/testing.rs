//! A process within the process, for a simulation of several brokers on one thread: its tasks are known, and can be
//! ended as a kill ends them. What would block on another thread runs here and now, so that a run can be repeated.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::task::{AbortHandle, JoinHandle};

tokio::task_local! {
    static HERE: Arc<Process>;
}

/// The tasks of one simulated process.
#[derive(Debug, Default)]
pub(crate) struct Process {
    tasks: Mutex<Vec<AbortHandle>>,
}

impl Process {
    /// The one that the present task belongs to.
    pub(crate) fn here() -> Option<Arc<Self>> {
        HERE.try_with(Arc::clone).ok()
    }

    /// Starts a task that belongs to it; so does what that one starts.
    pub(crate) fn spawn<T, F>(self: &Arc<Self>, future: F) -> JoinHandle<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let task = tokio::spawn(HERE.scope(Arc::clone(self), future));
        let mut tasks = self.tasks.lock();
        tasks.retain(|task| !task.is_finished());
        tasks.push(task.abort_handle());
        task
    }

    /// Whether nothing of it runs any more.
    pub(crate) fn is_idle(&self) -> bool {
        let mut tasks = self.tasks.lock();
        tasks.retain(|task| !task.is_finished());
        tasks.is_empty()
    }

    /// Ends its tasks where they wait.
    pub(crate) fn kill(&self) {
        for task in self.tasks.lock().drain(..) {
            task.abort();
        }
    }
}

/// Starts a task that belongs to no simulated process, whoever starts it.
pub(crate) fn outside<T, F>(future: F) -> JoinHandle<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    tokio::spawn(future)
}
