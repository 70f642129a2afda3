//! Markers for partitions wherever they are led: each attempt looks the leader up, and goes to this broker's own logs
//! or to the broker that leads.
//!
//! An attempt is made once. Whether it is repeated, and whether this is still the coordinator then, is the business of
//! who asks (`transaction/marking.rs`): what it drops is not sent any more.
//! Source: Kafka 3.9 `TransactionMarkerChannelManager`, `TransactionMarkerRequestCompletionHandler`.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use tokio::sync::Semaphore;
use tracing::warn;

use super::markers::{MarkerError, Markers, SharedMarkers};
use super::peer_links::MarkerLink;
use super::per_broker::{PerBroker, Question};
use super::writer::TransactionRefusal;
use crate::cluster::image::ImagePublisher;
use crate::types::{BrokerId, ProducerId, TopicPartition, TransactionMarker, limits};

/// [`Markers`] over all brokers of the cluster.
#[derive(Debug)]
pub(crate) struct RoutedMarkers {
    me: BrokerId,
    image: Arc<ImagePublisher>,
    local: SharedMarkers,
    /// Bounds how many are being written here at the same time.
    permits: Arc<Semaphore>,
    remote: Arc<PerBroker<Marker>>,
}

/// A marker for a partition that another broker leads.
struct Marker(TopicPartition, TransactionMarker);

impl Question for Marker {
    type Answer = Result<(), MarkerError>;
    /// What an answer of the wire tells apart.
    type Key = (ProducerId, TopicPartition);

    fn key(&self) -> Self::Key {
        (self.1.producer_id, self.0.clone())
    }

    fn bytes(&self) -> usize {
        // Ids, epochs, counts and tags, each with its own head at worst.
        self.0.topic.as_str().len() + 40
    }
}

impl RoutedMarkers {
    /// `local` writes where this broker, `me`, leads.
    pub(crate) fn new(
        me: BrokerId,
        image: Arc<ImagePublisher>,
        local: SharedMarkers,
        link: Arc<dyn MarkerLink>,
    ) -> Arc<Self> {
        let remote = PerBroker::new(move |leader, markers: Vec<Marker>| {
            let link = Arc::clone(&link);
            send(link, leader, markers).boxed()
        });
        let permits = Arc::new(Semaphore::new(limits::TRANSACTION_MARKERS_IN_FLIGHT_MAX));
        Arc::new(Self { me, image, local, permits, remote })
    }
}

async fn send(link: Arc<dyn MarkerLink>, leader: BrokerId, markers: Vec<Marker>) -> Vec<Result<(), MarkerError>> {
    let count = markers.len();
    let asked = markers.into_iter().map(|Marker(to, marker)| (to, marker)).collect();
    match link.write(leader, asked).await {
        Ok(codes) => codes.into_iter().map(outcome).collect(),
        Err(error) => vec![Err(MarkerError::NotAvailable(format!("broker {leader}: {error}"))); count],
    }
}

/// What a leader's code means for a marker.
fn outcome(code: i16) -> Result<(), MarkerError> {
    Err(match code {
        0 => return Ok(()),
        // UNSUPPORTED_VERSION, UNSUPPORTED_FOR_MESSAGE_FORMAT: a log of a former format, which no transaction is in.
        35 | 43 => {
            warn!(code, "a leader's log takes no marker; the partition counts as done");
            return Ok(());
        }
        // UNKNOWN_TOPIC_OR_PARTITION, NOT_LEADER_OR_FOLLOWER
        3 | 6 => MarkerError::NotLeader,
        // NOT_ENOUGH_REPLICAS, NOT_ENOUGH_REPLICAS_AFTER_APPEND
        19 | 20 => MarkerError::NotEnoughReplicas,
        // REQUEST_TIMED_OUT, KAFKA_STORAGE_ERROR
        7 | 56 => MarkerError::NotAvailable(format!("error code {code}")),
        // INVALID_PRODUCER_EPOCH
        47 => TransactionRefusal::InvalidProducerEpoch.into(),
        // TRANSACTION_COORDINATOR_FENCED
        52 => TransactionRefusal::CoordinatorFenced.into(),
        other => MarkerError::Unexpected(other),
    })
}

impl Markers for RoutedMarkers {
    fn write(&self, to: TopicPartition, marker: TransactionMarker) -> BoxFuture<'static, Result<(), MarkerError>> {
        let image = self.image.current();
        match image.partition(to.topic.as_str(), to.partition).map(|state| state.leader) {
            Some(Some(leader)) if leader != self.me => {
                let answer = self.remote.ask_leader(&self.image, (leader, to.clone()), Marker(to, marker));
                async move { answer.await.unwrap_or_else(|| Err(MarkerError::NotAvailable("no answer".into()))) }
                    .boxed()
            }
            Some(None) => ready(Err(MarkerError::NotAvailable("the partition has no leader now".into()))).boxed(),
            // One that the image does not know yet may be led here.
            Some(Some(_)) | None => {
                let (local, permits) = (Arc::clone(&self.local), Arc::clone(&self.permits));
                async move {
                    let _permit = permits.acquire().await;
                    local.write(to, marker).await
                }
                .boxed()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_leaders_mean_again_never_or_done() {
        for code in [0, 35, 43] {
            assert_eq!(outcome(code), Ok(()), "{code}");
        }
        for code in [3, 6, 7, 19, 20, 56] {
            let error = outcome(code).expect_err("again");
            assert!(!matches!(error, MarkerError::Refused(_) | MarkerError::Unexpected(_)), "{code}");
        }
        assert_eq!(outcome(47), Err(MarkerError::Refused(TransactionRefusal::InvalidProducerEpoch)));
        assert_eq!(outcome(52), Err(MarkerError::Refused(TransactionRefusal::CoordinatorFenced)));
        assert_eq!(outcome(2), Err(MarkerError::Unexpected(2)));
    }
}
