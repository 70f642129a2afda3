//! LeaderAndIsr 7: which partitions a broker leads or follows.
//!
//! Request: head, type i8, topics of (name, id, partitions), live leaders of (id i32, host, port i32). A partition:
//! index i32, controller epoch i32, leader i32, leader epoch i32, ISR, partition epoch i32, replicas, those that are
//! added and removed, is new bool, recovery state i8. The type says since Kafka 3.7 how a KRaft controller migrates and
//! is 0; live leaders are read by no broker that has UpdateMetadata, and are left out.
//!
//! Answer: error i16, topics of (id, partitions of (index i32, error i16)). A partition may carry a tagged field of our
//! own, [`TAG_END_LOST`]; Kafka's brokers and controllers skip what they do not know.

use bytes::{Bytes, BytesMut};

use super::{
    Control, Head, Message, Topic, brokers, flexible, list, put_brokers, put_list, put_topics, topic_id, topics,
};
use crate::types::{BrokerId, ControllerEpoch, LeaderEpoch, PartitionEpoch, PartitionIndex, TopicId};
use crate::wire::read::{Malformed, Reader};
use crate::wire::write::Writer;

/// Says to a controller of our kind why a replica that answers KAFKA_STORAGE_ERROR does not lead: its log may have lost
/// its end, and leads under a new epoch.
const TAG_END_LOST: u32 = 10_000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LeaderAndIsr {
    pub(crate) head: Head,
    pub(crate) topics: Vec<Topic<PartitionRole>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PartitionRole {
    pub(crate) partition: PartitionIndex,
    pub(crate) controller_epoch: ControllerEpoch,
    /// [`BrokerId::NONE`]: there is none.
    pub(crate) leader: BrokerId,
    pub(crate) leader_epoch: LeaderEpoch,
    pub(crate) isr: Vec<BrokerId>,
    pub(crate) partition_epoch: PartitionEpoch,
    pub(crate) replicas: Vec<BrokerId>,
    pub(crate) adding: Vec<BrokerId>,
    pub(crate) removing: Vec<BrokerId>,
    pub(crate) is_new: bool,
    /// 0: recovered, 1: recovering.
    pub(crate) recovery_state: i8,
}

/// What a partition takes at least.
const PARTITION_BYTES_MIN: usize = 28;

impl Message for LeaderAndIsr {
    fn encode(&self) -> Bytes {
        let mut writer = Writer::default();
        self.head.write(&mut writer);
        writer.i8(0);
        put_topics(&mut writer, &self.topics, PartitionRole::write);
        writer.count(0);
        writer.no_tags();
        writer.finish()
    }

    fn decode(body: BytesMut) -> Result<Self, Malformed> {
        let mut reader = flexible(body);
        let head = Head::read(&mut reader)?;
        let _type = reader.i8()?;
        let topics = topics(&mut reader, PARTITION_BYTES_MIN, PartitionRole::read)?;
        list(&mut reader, 10, |reader| {
            let (_id, _host, _port) = (reader.i32()?, reader.string()?, reader.i32()?);
            reader.skip_tags()
        })?;
        reader.skip_tags()?;
        Ok(Self { head, topics })
    }
}

impl Control for LeaderAndIsr {
    const KEY: i16 = 4;
    const VERSION: i16 = 7;
    type Answer = LeaderAndIsrAnswer;
}

impl PartitionRole {
    fn write(&self, writer: &mut Writer) {
        writer.i32(self.partition.0);
        writer.i32(self.controller_epoch.0);
        writer.i32(self.leader.0);
        writer.i32(self.leader_epoch.0);
        put_brokers(writer, &self.isr);
        writer.i32(self.partition_epoch.0);
        for brokers in [&self.replicas, &self.adding, &self.removing] {
            put_brokers(writer, brokers);
        }
        writer.bool(self.is_new);
        writer.i8(self.recovery_state);
        writer.no_tags();
    }

    fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        let read = Self {
            partition: PartitionIndex(reader.i32()?),
            controller_epoch: ControllerEpoch(reader.i32()?),
            leader: BrokerId(reader.i32()?),
            leader_epoch: LeaderEpoch(reader.i32()?),
            isr: brokers(reader)?,
            partition_epoch: PartitionEpoch(reader.i32()?),
            replicas: brokers(reader)?,
            adding: brokers(reader)?,
            removing: brokers(reader)?,
            is_new: reader.bool()?,
            recovery_state: reader.i8()?,
        };
        reader.skip_tags()?;
        Ok(read)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LeaderAndIsrAnswer {
    /// Of the whole request; then there are no topics.
    pub(crate) error_code: i16,
    pub(crate) topics: Vec<(TopicId, Vec<RoleAnswer>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RoleAnswer {
    pub(crate) partition: PartitionIndex,
    pub(crate) error_code: i16,
    /// The log may have lost its end.
    pub(crate) end_lost: bool,
}

impl Message for LeaderAndIsrAnswer {
    fn encode(&self) -> Bytes {
        let mut writer = Writer::default();
        writer.i16(self.error_code);
        put_list(&mut writer, &self.topics, |writer, (id, partitions)| {
            writer.slice(id.0.as_bytes());
            put_list(writer, partitions, |writer, answer| {
                writer.i32(answer.partition.0);
                writer.i16(answer.error_code);
                match answer.end_lost {
                    true => writer.one_tag(TAG_END_LOST, &[]),
                    false => writer.no_tags(),
                }
            });
            writer.no_tags();
        });
        writer.no_tags();
        writer.finish()
    }

    fn decode(body: BytesMut) -> Result<Self, Malformed> {
        let mut reader = flexible(body);
        let error_code = reader.i16()?;
        let topics = list(&mut reader, 18, |reader| {
            let id = topic_id(reader)?;
            let partitions = list(reader, 7, |reader| {
                let (partition, error_code) = (PartitionIndex(reader.i32()?), reader.i16()?);
                let mut end_lost = false;
                reader.tags(|tag, _| {
                    end_lost |= tag == TAG_END_LOST;
                    Ok(())
                })?;
                Ok(RoleAnswer { partition, error_code, end_lost })
            })?;
            reader.skip_tags()?;
            Ok((id, partitions))
        })?;
        reader.skip_tags()?;
        Ok(Self { error_code, topics })
    }
}
