//! UpdateMetadata 8: who leads what, and which brokers live.
//!
//! Request: head, topics of (name, id, partitions), live brokers of (id i32, endpoints, rack nullable). A partition:
//! index i32, controller epoch i32, leader i32 (−1 none, −2 it is being deleted), leader epoch i32, ISR, partition
//! epoch i32, replicas, offline replicas. An endpoint: port i32, host, listener, security protocol i16 (0 PLAINTEXT,
//! 1 SSL, 2 SASL_PLAINTEXT, 3 SASL_SSL). A tagged field 0 of the request says how a KRaft controller migrates, and is
//! skipped. Answer: error i16.

use bytes::{Bytes, BytesMut};

use super::{Control, Head, Message, Topic, brokers, flexible, list, put_brokers, put_list, put_topics, topics};
use crate::types::{BrokerId, ControllerEpoch, LeaderEpoch, PartitionEpoch, PartitionIndex};
use crate::wire::read::{Malformed, Reader};
use crate::wire::write::Writer;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UpdateMetadata {
    pub(crate) head: Head,
    pub(crate) topics: Vec<Topic<PartitionMetadata>>,
    pub(crate) live_brokers: Vec<Broker>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PartitionMetadata {
    pub(crate) partition: PartitionIndex,
    pub(crate) controller_epoch: ControllerEpoch,
    /// [`BrokerId::NONE`]: there is none. [`PartitionMetadata::BEING_DELETED`]: it leaves the cluster.
    pub(crate) leader: BrokerId,
    pub(crate) leader_epoch: LeaderEpoch,
    pub(crate) isr: Vec<BrokerId>,
    pub(crate) partition_epoch: PartitionEpoch,
    pub(crate) replicas: Vec<BrokerId>,
    pub(crate) offline_replicas: Vec<BrokerId>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Broker {
    pub(crate) id: BrokerId,
    pub(crate) endpoints: Vec<BrokerEndpoint>,
    pub(crate) rack: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BrokerEndpoint {
    pub(crate) port: i32,
    pub(crate) host: String,
    pub(crate) listener: String,
    /// Number of the security protocol. Source: Kafka `SecurityProtocol`.
    pub(crate) security_protocol: i16,
}

/// Security protocols by their number. Source: Kafka `SecurityProtocol`.
const PROTOCOLS: [&str; 4] = ["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"];

/// `None`: there is no such protocol.
pub(crate) fn protocol_number(name: &str) -> Option<i16> {
    PROTOCOLS.iter().position(|known| *known == name).map(|number| number as i16)
}

/// `None`: there is no such protocol.
pub(crate) fn protocol_name(number: i16) -> Option<&'static str> {
    PROTOCOLS.get(usize::try_from(number).ok()?).copied()
}

/// What a partition takes at least.
const PARTITION_BYTES_MIN: usize = 24;

impl PartitionMetadata {
    /// Source: Kafka 3.9 `LeaderAndIsr.LeaderDuringDelete`.
    pub(crate) const BEING_DELETED: BrokerId = BrokerId(-2);

    fn write(&self, writer: &mut Writer) {
        writer.i32(self.partition.0);
        writer.i32(self.controller_epoch.0);
        writer.i32(self.leader.0);
        writer.i32(self.leader_epoch.0);
        put_brokers(writer, &self.isr);
        writer.i32(self.partition_epoch.0);
        put_brokers(writer, &self.replicas);
        put_brokers(writer, &self.offline_replicas);
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
            offline_replicas: brokers(reader)?,
        };
        reader.skip_tags()?;
        Ok(read)
    }
}

impl Broker {
    fn write(&self, writer: &mut Writer) {
        writer.i32(self.id.0);
        put_list(writer, &self.endpoints, |writer, endpoint| {
            writer.i32(endpoint.port);
            writer.string(Some(&endpoint.host));
            writer.string(Some(&endpoint.listener));
            writer.i16(endpoint.security_protocol);
            writer.no_tags();
        });
        writer.string(self.rack.as_deref());
        writer.no_tags();
    }

    fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        let id = BrokerId(reader.i32()?);
        let endpoints = list(reader, 9, |reader| {
            let port = reader.i32()?;
            let (host, listener) = (reader.string()?.to_string(), reader.string()?.to_string());
            let security_protocol = reader.i16()?;
            reader.skip_tags()?;
            Ok(BrokerEndpoint { port, host, listener, security_protocol })
        })?;
        let rack = reader.nullable_string()?.map(|rack| rack.to_string());
        reader.skip_tags()?;
        Ok(Self { id, endpoints, rack })
    }
}

impl Message for UpdateMetadata {
    fn encode(&self) -> Bytes {
        let mut writer = Writer::default();
        self.head.write(&mut writer);
        put_topics(&mut writer, &self.topics, PartitionMetadata::write);
        put_list(&mut writer, &self.live_brokers, |writer, broker| broker.write(writer));
        writer.no_tags();
        writer.finish()
    }

    fn decode(body: BytesMut) -> Result<Self, Malformed> {
        let mut reader = flexible(body);
        let head = Head::read(&mut reader)?;
        let topics = topics(&mut reader, PARTITION_BYTES_MIN, PartitionMetadata::read)?;
        let live_brokers = list(&mut reader, 7, Broker::read)?;
        reader.skip_tags()?;
        Ok(Self { head, topics, live_brokers })
    }
}

impl Control for UpdateMetadata {
    const KEY: i16 = 6;
    const VERSION: i16 = 8;
    type Answer = UpdateMetadataAnswer;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UpdateMetadataAnswer {
    pub(crate) error_code: i16,
}

impl Message for UpdateMetadataAnswer {
    fn encode(&self) -> Bytes {
        let mut writer = Writer::default();
        writer.i16(self.error_code);
        writer.no_tags();
        writer.finish()
    }

    fn decode(body: BytesMut) -> Result<Self, Malformed> {
        let mut reader = flexible(body);
        let error_code = reader.i16()?;
        reader.skip_tags()?;
        Ok(Self { error_code })
    }
}
