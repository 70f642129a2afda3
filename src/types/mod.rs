//! The vocabulary every room shares: ids, offsets, epochs, names and limits as newtypes. Imports nothing of ours.

pub(crate) mod acl;
pub(crate) mod crc;
pub mod epoch;
pub mod fence;
pub mod ids;
pub mod limits;
pub mod offset;
pub(crate) mod place;
pub mod topic;
pub mod transaction;

pub use epoch::{BrokerEpoch, ControllerEpoch, LeaderEpoch, PartitionEpoch, ProducerEpoch};
pub use fence::{Fence, LogOpening};
pub use ids::{BrokerId, ProducerId, TopicId};
pub use offset::Offset;
pub use topic::{PartitionIndex, TopicName, TopicPartition};
pub use transaction::{TransactionGuard, TransactionMarker, TransactionResult};
