//! A broker's session on the tree: every call takes a while each way, may lose its answer, and hangs while the broker
//! is cut off; what the session is, the broker hears when it is not.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::sleep;

use super::chance::Chance;
use super::cluster::Plant;
use crate::coordination::embedded::EmbeddedCoordination;
use crate::coordination::{
    Answer, Changed, Coordination, CoordinationError, CreateMode, MultiError, Op, OpResult, Session, Stat,
};
use crate::task::testing::outside;

/// How long a call waits while the broker is cut off.
const TIME_OUT: Duration = Duration::from_secs(6);

#[derive(Debug)]
pub(super) struct SimStore {
    inner: Arc<EmbeddedCoordination>,
    chance: Chance,
    /// The broker cannot reach the tree.
    cut: watch::Sender<bool>,
    /// What the broker has heard of its session.
    heard: watch::Sender<Session>,
    /// One call in so many loses its answer.
    losses: u64,
    plant: Plant,
}

fn lost() -> CoordinationError {
    CoordinationError::Unknown("the connection was lost".into())
}

impl SimStore {
    /// Over a session of its own.
    pub(super) fn new(inner: EmbeddedCoordination, chance: Chance, losses: u64, plant: Plant) -> Arc<Self> {
        let heard = watch::Sender::new(*inner.session().borrow());
        let store =
            Arc::new(Self { inner: Arc::new(inner), chance, cut: watch::Sender::new(false), heard, losses, plant });
        let (relay, mut session) = (Arc::downgrade(&store), store.inner.session());
        // Not the broker's own task: it ends with the session.
        drop(outside(async move {
            while session.changed().await.is_ok() {
                let now = *session.borrow_and_update();
                let Some(store) = relay.upgrade() else { return };
                let mut cut = store.cut.subscribe();
                // The sender lives as long as the store.
                drop(cut.wait_for(|cut| !cut).await);
                store.heard.send_replace(now);
            }
        }));
        store
    }

    pub(super) fn cut_off(&self, cut: bool) {
        self.cut.send_replace(cut);
    }

    pub(super) fn is_cut_off(&self) -> bool {
        *self.cut.borrow()
    }

    /// The ensemble has not heard of the broker for too long.
    pub(super) async fn expire(&self) {
        self.inner.expire().await;
    }

    /// A call, done on the other side even if the caller is gone by then. `None`: its outcome is unknown.
    async fn pass<T: Send + 'static>(
        &self,
        call: impl FnOnce(Arc<EmbeddedCoordination>) -> BoxFuture<'static, T>,
    ) -> Option<T> {
        sleep(self.chance.micros(100, 2000)).await;
        if *self.cut.borrow() {
            sleep(TIME_OUT).await;
            return None;
        }
        let answer = outside(call(Arc::clone(&self.inner))).await.expect("a call of the tree does not panic");
        if *self.cut.borrow() {
            sleep(TIME_OUT).await;
            return None;
        }
        sleep(self.chance.micros(100, 2000)).await;
        (!self.chance.one_in(self.losses)).then_some(answer)
    }

    /// As [`Self::pass`], for a call that answers one thing.
    async fn answer<T: Send + 'static>(
        &self,
        call: impl FnOnce(Arc<EmbeddedCoordination>) -> BoxFuture<'static, Result<T, CoordinationError>>,
    ) -> Result<T, CoordinationError> {
        self.pass(call).await.unwrap_or_else(|| Err(lost()))
    }
}

impl Coordination for SimStore {
    fn create<'a>(&'a self, path: &'a str, data: Bytes, mode: CreateMode) -> Answer<'a, (String, Stat)> {
        let path = path.to_owned();
        let call = move |tree: Arc<EmbeddedCoordination>| async move { tree.create(&path, data, mode).await }.boxed();
        self.answer(call).boxed()
    }

    fn get<'a>(&'a self, path: &'a str) -> Answer<'a, Option<(Bytes, Stat)>> {
        let path = path.to_owned();
        let unseen = self.plant == Plant::BounceUnseen;
        let call = move |tree: Arc<EmbeddedCoordination>| {
            async move {
                let mut node = tree.get(&path).await?;
                if let Some((_, stat)) = node.as_mut().filter(|_| unseen) {
                    stat.mzxid = i64::MAX;
                }
                Ok(node)
            }
            .boxed()
        };
        self.answer(call).boxed()
    }

    fn get_and_watch<'a>(&'a self, path: &'a str) -> Answer<'a, (Option<(Bytes, Stat)>, Changed)> {
        let path = path.to_owned();
        let call = move |tree: Arc<EmbeddedCoordination>| async move { tree.get_and_watch(&path).await }.boxed();
        self.answer(call).boxed()
    }

    fn children<'a>(&'a self, path: &'a str) -> Answer<'a, Vec<String>> {
        let path = path.to_owned();
        let call = move |tree: Arc<EmbeddedCoordination>| async move { tree.children(&path).await }.boxed();
        self.answer(call).boxed()
    }

    fn children_and_watch<'a>(&'a self, path: &'a str) -> Answer<'a, (Vec<String>, Changed)> {
        let path = path.to_owned();
        let call = move |tree: Arc<EmbeddedCoordination>| async move { tree.children_and_watch(&path).await }.boxed();
        self.answer(call).boxed()
    }

    fn set<'a>(&'a self, path: &'a str, data: Bytes, version: i32) -> Answer<'a, Stat> {
        let path = path.to_owned();
        let call = move |tree: Arc<EmbeddedCoordination>| async move { tree.set(&path, data, version).await }.boxed();
        self.answer(call).boxed()
    }

    fn delete<'a>(&'a self, path: &'a str, version: i32) -> Answer<'a, ()> {
        let path = path.to_owned();
        let call = move |tree: Arc<EmbeddedCoordination>| async move { tree.delete(&path, version).await }.boxed();
        self.answer(call).boxed()
    }

    fn multi<'a>(&'a self, ops: Vec<Op>) -> BoxFuture<'a, Result<Vec<OpResult>, MultiError>> {
        let call = move |tree: Arc<EmbeddedCoordination>| async move { tree.multi(ops).await }.boxed();
        async move { self.pass(call).await.unwrap_or_else(|| Err(MultiError { index: 0, error: lost() })) }.boxed()
    }

    fn multi_all<'a>(&'a self, batches: Vec<Vec<Op>>) -> BoxFuture<'a, Vec<Result<Vec<OpResult>, MultiError>>> {
        let count = batches.len();
        let call = move |tree: Arc<EmbeddedCoordination>| async move { tree.multi_all(batches).await }.boxed();
        let unknown = move || vec![Err(MultiError { index: 0, error: lost() }); count];
        async move { self.pass(call).await.unwrap_or_else(unknown) }.boxed()
    }

    fn session(&self) -> watch::Receiver<Session> {
        self.heard.subscribe()
    }

    fn reconnect(&self) -> Answer<'_, ()> {
        let call = |tree: Arc<EmbeddedCoordination>| async move { tree.reconnect().await }.boxed();
        async move {
            self.answer(call).await?;
            let now = *self.inner.session().borrow();
            self.heard.send_replace(now);
            Ok(())
        }
        .boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async move { self.inner.close().await }.boxed()
    }
}
