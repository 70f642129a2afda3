//! What the transaction coordinator refuses. The names are Kafka's; the api room has the numbers.

use crate::coordinator::context::Unavailable;

/// A refusal. Source of the names: Kafka `Errors`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TransactionError {
    /// The transaction's partitions cannot be stored, because together they are larger than one batch may be.
    #[error("the transaction is too large to be stored")]
    UnknownServerError,
    #[error("the coordinator is loading")]
    CoordinatorLoadInProgress,
    #[error("the coordinator is not available")]
    CoordinatorNotAvailable,
    /// It is elsewhere and did not answer.
    #[error("the coordinator did not answer")]
    NetworkException,
    #[error("this broker does not coordinate the transactional id")]
    NotCoordinator,
    #[error("the transactional id cannot be one")]
    InvalidRequest,
    #[error("the transaction's time-out is out of range")]
    InvalidTransactionTimeout,
    #[error("the producer id does not belong to the transactional id")]
    InvalidProducerIdMapping,
    #[error("there is a newer producer with the transactional id")]
    ProducerFenced,
    #[error("another operation of the transaction is under way")]
    ConcurrentTransactions,
    #[error("the transaction is not in a state for that")]
    InvalidTxnState,
    #[error("there is no such transactional id")]
    TransactionalIdNotFound,
    /// Of a coordinator elsewhere, passed on as it came.
    #[error("error code {0}")]
    Other(i16),
}

impl From<Unavailable> for TransactionError {
    fn from(why: Unavailable) -> Self {
        match why {
            Unavailable::NotCoordinator => Self::NotCoordinator,
            Unavailable::Loading => Self::CoordinatorLoadInProgress,
            // No shard here writes into transactions.
            Unavailable::NotAvailable | Unavailable::Transaction(_) => Self::CoordinatorNotAvailable,
        }
    }
}
