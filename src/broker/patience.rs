//! A start that loses its ZooKeeper for a moment begins the part that it was in once more.
//!
//! Each such part may be done twice: it reads, or makes what is taken as it is when it is found. Once a broker is
//! registered whatever it asks of the store has a patience of its own. Source: Kafka 3.9 `KafkaZkClient`, whose
//! requests wait for the connection and are sent again.

use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tracing::warn;

use super::identity::millis;
use super::refused::StartError;
use crate::config::Config;
use crate::coordination::Session;

/// Runs `part`, again if the connection to the store changed under it, until `zookeeper.connection.timeout.ms` is over;
/// then the last error holds. Without a change the first one does.
pub(super) async fn over_losses<'a, T>(
    config: &Config,
    session: watch::Receiver<Session>,
    part: impl FnMut() -> BoxFuture<'a, Result<T, StartError>>,
) -> Result<T, StartError> {
    let patience = config.zookeeper.as_ref().map_or(0, |zookeeper| zookeeper.connection_timeout_ms);
    again(millis(i64::from(patience)), session, part).await
}

async fn again<'a, T>(
    patience: Duration,
    mut session: watch::Receiver<Session>,
    mut part: impl FnMut() -> BoxFuture<'a, Result<T, StartError>>,
) -> Result<T, StartError> {
    let deadline = Instant::now() + patience;
    loop {
        session.mark_unchanged();
        let error = match part().await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        // The session shows a moment later than its requests that the connection is lost.
        let lost = timeout_at(deadline.min(Instant::now() + NOTICE), session.changed()).await;
        if !matches!(lost, Ok(Ok(()))) {
            return Err(error);
        }
        warn!(%error, "the store was lost; this part of the start is done again once it is back");
        let back = session.wait_for(|session| matches!(session, Session::Connected(_)));
        if !matches!(timeout_at(deadline, back).await, Ok(Ok(_))) {
            return Err(error);
        }
    }
}

const NOTICE: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn refused() -> StartError {
        StartError("no response".into())
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_is_done_again_if_the_connection_was_lost_under_it() {
        let store = watch::Sender::new(Session::Connected(1));
        let runs = AtomicUsize::new(0);
        let part = async || match runs.fetch_add(1, Ordering::Relaxed) {
            0 => {
                store.send_replace(Session::Disconnected(1));
                store.send_replace(Session::Connected(1));
                Err(refused())
            }
            _ => Ok(7),
        };
        let done = again(Duration::from_secs(5), store.subscribe(), || Box::pin(part())).await;
        assert_eq!((done.ok(), runs.load(Ordering::Relaxed)), (Some(7), 2));
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_without_a_loss_holds_and_so_does_one_with_a_store_that_stays_away() {
        let store = watch::Sender::new(Session::Connected(1));
        let runs = AtomicUsize::new(0);
        let part = async |lost: bool| -> Result<(), StartError> {
            runs.fetch_add(1, Ordering::Relaxed);
            if lost {
                store.send_replace(Session::Disconnected(1));
            }
            Err(refused())
        };
        let patience = Duration::from_secs(5);
        assert!(again(patience, store.subscribe(), || Box::pin(part(false))).await.is_err());
        let began = Instant::now();
        assert!(again(patience, store.subscribe(), || Box::pin(part(true))).await.is_err());
        assert_eq!((runs.load(Ordering::Relaxed), began.elapsed().as_secs()), (2, 5));
    }
}
