//! The requests of Kafka 3.9's ZooKeeper mode that the codec crate no longer has: LeaderAndIsr 7, StopReplica 4,
//! UpdateMetadata 8 and ControlledShutdown 3, with their answers, in both directions.
//!
//! One version each, which brokers of `inter.broker.protocol.version` 3.4 to 3.9 send; all of them flexible. Counts are
//! checked against the bytes that are there before anything is reserved (I-21). What follows a message is ignored, as
//! by Kafka. Source: Kafka 3.9 `LeaderAndIsrRequest.json` and its neighbours.

mod controlled_shutdown;
mod leader_and_isr;
mod stop_replica;
#[cfg(test)]
mod tests;
mod update_metadata;

use bytes::{Bytes, BytesMut};

pub(crate) use controlled_shutdown::{ControlledShutdown, ControlledShutdownAnswer};
pub(crate) use leader_and_isr::{LeaderAndIsr, LeaderAndIsrAnswer, PartitionRole, RoleAnswer};
pub(crate) use stop_replica::{StopPartition, StopReplica, StopReplicaAnswer};
pub(crate) use update_metadata::{
    Broker, BrokerEndpoint, PartitionMetadata, UpdateMetadata, UpdateMetadataAnswer, protocol_name, protocol_number,
};

use super::read::{Malformed, Reader};
use super::write::Writer;
use crate::types::{BrokerEpoch, BrokerId, ControllerEpoch, TopicId, TopicName};

/// A body, without its header.
pub(crate) trait Message: Sized {
    fn encode(&self) -> Bytes;

    /// # Errors
    /// The body does not hold what it must.
    fn decode(body: BytesMut) -> Result<Self, Malformed>;
}

/// A request, its one version and its answer.
pub(crate) trait Control: Message {
    const KEY: i16;
    const VERSION: i16;
    type Answer: Message;
}

/// What the controller's three requests begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) controller: BrokerId,
    pub(crate) controller_epoch: ControllerEpoch,
    /// Of the registration of the broker it is sent to.
    pub(crate) broker_epoch: BrokerEpoch,
}

impl Head {
    /// controller id i32, is a KRaft controller bool, controller epoch i32, broker epoch i64.
    fn write(self, writer: &mut Writer) {
        writer.i32(self.controller.0);
        writer.bool(false);
        writer.i32(self.controller_epoch.0);
        writer.i64(self.broker_epoch.0);
    }

    fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        let controller = BrokerId(reader.i32()?);
        let _is_kraft_controller = reader.bool()?;
        let controller_epoch = ControllerEpoch(reader.i32()?);
        Ok(Self { controller, controller_epoch, broker_epoch: BrokerEpoch(reader.i64()?) })
    }
}

/// A topic with what is said of its partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Topic<P> {
    pub(crate) name: TopicName,
    pub(crate) id: TopicId,
    pub(crate) partitions: Vec<P>,
}

fn flexible(body: BytesMut) -> Reader {
    Reader::new(body, true)
}

/// An array whose elements take at least `element_bytes_min` on the wire each.
fn list<T>(
    reader: &mut Reader,
    element_bytes_min: usize,
    mut element: impl FnMut(&mut Reader) -> Result<T, Malformed>,
) -> Result<Vec<T>, Malformed> {
    let count = reader.count(element_bytes_min)?;
    let mut elements = Vec::with_capacity(count);
    for _ in 0..count {
        elements.push(element(reader)?);
    }
    Ok(elements)
}

/// The other direction of [`list`].
fn put_list<T>(writer: &mut Writer, elements: &[T], mut element: impl FnMut(&mut Writer, &T)) {
    writer.count(elements.len());
    for it in elements {
        element(writer, it);
    }
}

fn brokers(reader: &mut Reader) -> Result<Vec<BrokerId>, Malformed> {
    list(reader, 4, |reader| reader.i32().map(BrokerId))
}

fn put_brokers(writer: &mut Writer, brokers: &[BrokerId]) {
    put_list(writer, brokers, |writer, broker| writer.i32(broker.0));
}

/// Topics of (name, id, partitions), of which each partition takes at least so many bytes.
fn topics<P>(
    reader: &mut Reader,
    partition_bytes_min: usize,
    partition: impl Fn(&mut Reader) -> Result<P, Malformed>,
) -> Result<Vec<Topic<P>>, Malformed> {
    list(reader, 19, |reader| {
        let (name, id) = (topic_name(reader)?, topic_id(reader)?);
        let partitions = list(reader, partition_bytes_min, &partition)?;
        reader.skip_tags()?;
        Ok(Topic { name, id, partitions })
    })
}

fn put_topics<P>(writer: &mut Writer, topics: &[Topic<P>], partition: impl Fn(&P, &mut Writer)) {
    put_list(writer, topics, |writer, topic| {
        writer.string(Some(topic.name.as_str()));
        writer.slice(topic.id.0.as_bytes());
        put_list(writer, &topic.partitions, |writer, it| partition(it, writer));
        writer.no_tags();
    });
}

fn topic_name(reader: &mut Reader) -> Result<TopicName, Malformed> {
    Ok(TopicName::new(&reader.string()?))
}

fn topic_id(reader: &mut Reader) -> Result<TopicId, Malformed> {
    Ok(TopicId(uuid::Uuid::from_bytes(reader.array()?)))
}
