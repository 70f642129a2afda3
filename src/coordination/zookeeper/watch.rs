//! From the crate's one-shot watches to the seam's.

use zookeeper_client::OneshotWatcher;

use crate::coordination::Changed;
use crate::task;

/// Resolves when the watch fires or its session ends. Dropping it takes the watch off the server.
pub(super) fn changed(watcher: OneshotWatcher) -> Changed {
    let (mut sender, changed) = tokio::sync::oneshot::channel();
    task::spawn(async move {
        tokio::select! {
            _ = watcher.changed() => {
                // The receiver may be gone.
                let _ = sender.send(());
            }
            () = sender.closed() => {}
        }
    });
    changed
}
