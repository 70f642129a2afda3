//! One-shot watches of the embedded tree: which call waits for what, and which of them an event wakes.
//!
//! Only gathers the watches to fire; `mod.rs` fires them once the change can be read. Semantics are ZooKeeper's: a data
//! watch fires when its node is created, set or deleted, a child watch when its node is deleted or a child comes or
//! goes.

use std::collections::HashMap;

use tokio::sync::oneshot;

use super::tree::{Event, parent_path};
use crate::coordination::Changed;

/// What is watched about a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Data,
    Children,
}

#[derive(Debug)]
struct Watcher {
    session: i64,
    sender: oneshot::Sender<()>,
}

/// All watches that have not fired.
#[derive(Debug, Default)]
pub(super) struct Watches {
    data: HashMap<String, Vec<Watcher>>,
    children: HashMap<String, Vec<Watcher>>,
}

/// Watches that wait to be woken.
pub(super) type Fired = Vec<oneshot::Sender<()>>;

impl Watches {
    /// Leaves a watch.
    pub(super) fn add(&mut self, kind: Kind, path: &str, session: i64) -> Changed {
        let (sender, changed) = oneshot::channel();
        let watchers = self.of(kind).entry(path.to_owned()).or_default();
        // A reader that reads again drops the watch of the time before; those must not pile up on a node that never
        // changes.
        watchers.retain(|watcher| !watcher.sender.is_closed());
        watchers.push(Watcher { session, sender });
        changed
    }

    /// Takes the watches that an event wakes.
    pub(super) fn take(&mut self, event: &Event, fired: &mut Fired) {
        match event {
            Event::Created(path) => {
                self.take_from(Kind::Data, path, fired);
                self.take_from(Kind::Children, parent_path(path), fired);
            }
            Event::DataChanged(path) => self.take_from(Kind::Data, path, fired),
            Event::Deleted(path) => {
                self.take_from(Kind::Data, path, fired);
                self.take_from(Kind::Children, path, fired);
                self.take_from(Kind::Children, parent_path(path), fired);
            }
        }
    }

    /// Takes all watches of a session that ended.
    pub(super) fn take_session(&mut self, session: i64, fired: &mut Fired) {
        for watches in [&mut self.data, &mut self.children] {
            for watchers in watches.values_mut() {
                fired.extend(watchers.extract_if(.., |watcher| watcher.session == session).map(|w| w.sender));
            }
            watches.retain(|_, watchers| !watchers.is_empty());
        }
    }

    fn of(&mut self, kind: Kind) -> &mut HashMap<String, Vec<Watcher>> {
        match kind {
            Kind::Data => &mut self.data,
            Kind::Children => &mut self.children,
        }
    }

    fn take_from(&mut self, kind: Kind, path: &str, fired: &mut Fired) {
        if let Some(watchers) = self.of(kind).remove(path) {
            fired.extend(watchers.into_iter().map(|watcher| watcher.sender));
        }
    }
}

/// Wakes them.
pub(super) fn wake(fired: Fired) {
    for sender in fired {
        // The receiver may be gone.
        let _ = sender.send(());
    }
}
