//! ControlledShutdown 3: a broker asks the controller to move away what it leads.
//!
//! Request: broker id i32, broker epoch i64. Answer: error i16, partitions it still leads of (topic name, index i32).

use bytes::{Bytes, BytesMut};

use super::{Control, Message, flexible, list, put_list, topic_name};
use crate::types::{BrokerEpoch, BrokerId, PartitionIndex, TopicName};
use crate::wire::read::Malformed;
use crate::wire::write::Writer;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ControlledShutdown {
    pub(crate) broker: BrokerId,
    pub(crate) broker_epoch: BrokerEpoch,
}

impl Message for ControlledShutdown {
    fn encode(&self) -> Bytes {
        let mut writer = Writer::default();
        writer.i32(self.broker.0);
        writer.i64(self.broker_epoch.0);
        writer.no_tags();
        writer.finish()
    }

    fn decode(body: BytesMut) -> Result<Self, Malformed> {
        let mut reader = flexible(body);
        let (broker, broker_epoch) = (BrokerId(reader.i32()?), BrokerEpoch(reader.i64()?));
        reader.skip_tags()?;
        Ok(Self { broker, broker_epoch })
    }
}

impl Control for ControlledShutdown {
    const KEY: i16 = 7;
    const VERSION: i16 = 3;
    type Answer = ControlledShutdownAnswer;
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ControlledShutdownAnswer {
    pub(crate) error_code: i16,
    pub(crate) remaining: Vec<(TopicName, PartitionIndex)>,
}

impl Message for ControlledShutdownAnswer {
    fn encode(&self) -> Bytes {
        let mut writer = Writer::default();
        writer.i16(self.error_code);
        put_list(&mut writer, &self.remaining, |writer, (topic, partition)| {
            writer.string(Some(topic.as_str()));
            writer.i32(partition.0);
            writer.no_tags();
        });
        writer.no_tags();
        writer.finish()
    }

    fn decode(body: BytesMut) -> Result<Self, Malformed> {
        let mut reader = flexible(body);
        let error_code = reader.i16()?;
        let remaining = list(&mut reader, 6, |reader| {
            let one = (topic_name(reader)?, PartitionIndex(reader.i32()?));
            reader.skip_tags()?;
            Ok(one)
        })?;
        reader.skip_tags()?;
        Ok(Self { error_code, remaining })
    }
}
