//! StopReplica 4: which partitions a broker no longer serves.
//!
//! Request: head, topics of (name, partitions of (index i32, leader epoch i32, delete bool)). A leader epoch of −2 says
//! that the topic is being deleted, −1 that the sender knows of none. Answer: error i16, partitions of (topic name,
//! index i32, error i16).

use bytes::{Bytes, BytesMut};

use super::{Control, Head, Message, flexible, list, put_list, topic_name};
use crate::types::{LeaderEpoch, PartitionIndex, TopicName};
use crate::wire::read::Malformed;
use crate::wire::write::Writer;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StopReplica {
    pub(crate) head: Head,
    pub(crate) topics: Vec<(TopicName, Vec<StopPartition>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StopPartition {
    pub(crate) partition: PartitionIndex,
    pub(crate) leader_epoch: LeaderEpoch,
    pub(crate) delete: bool,
}

impl StopPartition {
    /// Source: Kafka 3.9 `LeaderAndIsr.EpochDuringDelete`.
    pub(crate) const DURING_DELETE: LeaderEpoch = LeaderEpoch(-2);
}

impl Message for StopReplica {
    fn encode(&self) -> Bytes {
        let mut writer = Writer::default();
        self.head.write(&mut writer);
        put_list(&mut writer, &self.topics, |writer, (name, partitions)| {
            writer.string(Some(name.as_str()));
            put_list(writer, partitions, |writer, stop| {
                writer.i32(stop.partition.0);
                writer.i32(stop.leader_epoch.0);
                writer.bool(stop.delete);
                writer.no_tags();
            });
            writer.no_tags();
        });
        writer.no_tags();
        writer.finish()
    }

    fn decode(body: BytesMut) -> Result<Self, Malformed> {
        let mut reader = flexible(body);
        let head = Head::read(&mut reader)?;
        let topics = list(&mut reader, 3, |reader| {
            let name = topic_name(reader)?;
            let partitions = list(reader, 10, |reader| {
                let (partition, leader_epoch) = (PartitionIndex(reader.i32()?), LeaderEpoch(reader.i32()?));
                let delete = reader.bool()?;
                reader.skip_tags()?;
                Ok(StopPartition { partition, leader_epoch, delete })
            })?;
            reader.skip_tags()?;
            Ok((name, partitions))
        })?;
        reader.skip_tags()?;
        Ok(Self { head, topics })
    }
}

impl Control for StopReplica {
    const KEY: i16 = 5;
    const VERSION: i16 = 4;
    type Answer = StopReplicaAnswer;
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StopReplicaAnswer {
    /// Of the whole request; then there are no partitions.
    pub(crate) error_code: i16,
    pub(crate) partitions: Vec<(TopicName, PartitionIndex, i16)>,
}

impl Message for StopReplicaAnswer {
    fn encode(&self) -> Bytes {
        let mut writer = Writer::default();
        writer.i16(self.error_code);
        put_list(&mut writer, &self.partitions, |writer, (topic, partition, error_code)| {
            writer.string(Some(topic.as_str()));
            writer.i32(partition.0);
            writer.i16(*error_code);
            writer.no_tags();
        });
        writer.no_tags();
        writer.finish()
    }

    fn decode(body: BytesMut) -> Result<Self, Malformed> {
        let mut reader = flexible(body);
        let error_code = reader.i16()?;
        let partitions = list(&mut reader, 8, |reader| {
            let answer = (topic_name(reader)?, PartitionIndex(reader.i32()?), reader.i16()?);
            reader.skip_tags()?;
            Ok(answer)
        })?;
        reader.skip_tags()?;
        Ok(Self { error_code, partitions })
    }
}
