//! The records of `__consumer_offsets`, encoded by hand exactly as Kafka 3.9 writes them, so that a JVM broker can take
//! the partition over and Kafka's console consumer formatters can print it.
//!
//! All integers are big-endian; a string is an int16 length and UTF-8, −1 for null; bytes have an int32 length; an
//! array has an int32 count. Key and value each begin with an int16 version. No value is a tombstone.
//!
//! ```text
//! offset key    1, group, topic, partition i32                      (version 0 has the same form and is read)
//! offset value  3, offset i64, leader epoch i32, metadata, commit timestamp i64
//!               1, offset i64, metadata, commit timestamp i64, expire timestamp i64   (an explicit retention was
//! given) group key     2, group group value   3, protocol type, generation i32, protocol?, leader?, current state
//! timestamp i64,
//!                  [member id, instance id?, client id, client host, rebalance time-out i32, session time-out i32,
//!                   subscription bytes, assignment bytes]
//! ```
//! Value versions 0 to 4 are read; 4 is flexible: compact lengths (+1, unsigned varint) and tagged fields.
//! Source: Kafka 3.9 `group-coordinator/src/main/resources/common/message`, `GroupMetadataManager`.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use crate::clock::UnixMs;
use crate::coordinator::fields::{Reader, TooLong, put_bytes, put_nullable_str, put_str};
use crate::coordinator::shard::ReplayError;
use crate::coordinator::writer::CoordinatorRecord;
use crate::types::{LeaderEpoch, Offset, PartitionIndex};

/// The newest version of a value, the first that is flexible.
const VERSION_FLEXIBLE: i16 = 4;

/// The key of a record, borrowed from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key<'a> {
    Offset { group: &'a str, topic: &'a str, partition: PartitionIndex },
    Group { group: &'a str },
}

/// A committed offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OffsetValue {
    pub(crate) offset: Offset,
    /// [`LeaderEpoch::NONE`] when the client gave none.
    pub(crate) leader_epoch: LeaderEpoch,
    pub(crate) metadata: Box<str>,
    pub(crate) commit_ms: UnixMs,
    /// Set when the commit came with a retention of its own (OffsetCommit 2 to 4).
    pub(crate) expire_ms: Option<UnixMs>,
}

/// A group as stored when a generation became stable, or empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GroupValue {
    /// Empty for none.
    pub(crate) protocol_type: String,
    pub(crate) generation_id: i32,
    pub(crate) protocol: Option<String>,
    pub(crate) leader: Option<Arc<str>>,
    /// Since when the group is in its state; unknown in old records.
    pub(crate) state_ms: Option<UnixMs>,
    pub(crate) members: Vec<MemberValue>,
}

/// A member as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MemberValue {
    pub(crate) member_id: Arc<str>,
    pub(crate) instance_id: Option<Arc<str>>,
    pub(crate) client_id: Arc<str>,
    pub(crate) client_host: Arc<str>,
    pub(crate) rebalance_timeout_ms: i32,
    pub(crate) session_timeout_ms: i32,
    pub(crate) subscription: Bytes,
    pub(crate) assignment: Bytes,
}

/// The record that commits `value`, or with `None` the tombstone that removes the commit.
pub(crate) fn offset_record(
    group: &str,
    topic: &str,
    partition: PartitionIndex,
    value: Option<&OffsetValue>,
) -> Result<CoordinatorRecord, TooLong> {
    let mut key = BytesMut::with_capacity(10 + group.len() + topic.len());
    key.put_i16(1);
    put_str(&mut key, group)?;
    put_str(&mut key, topic)?;
    key.put_i32(partition.0);
    let value = match value {
        Some(value) => Some(encode_offset(value)?),
        None => None,
    };
    Ok(CoordinatorRecord { key: key.freeze(), value })
}

/// The record that stores a group, or with `None` the tombstone that removes it.
pub(crate) fn group_record(group: &str, value: Option<&GroupValue>) -> Result<CoordinatorRecord, TooLong> {
    let mut key = BytesMut::with_capacity(4 + group.len());
    key.put_i16(2);
    put_str(&mut key, group)?;
    let value = match value {
        Some(value) => Some(encode_group(value)?),
        None => None,
    };
    Ok(CoordinatorRecord { key: key.freeze(), value })
}

fn encode_offset(value: &OffsetValue) -> Result<Bytes, TooLong> {
    let mut out = BytesMut::with_capacity(32 + value.metadata.len());
    out.put_i16(if value.expire_ms.is_some() { 1 } else { 3 });
    out.put_i64(value.offset.0);
    if value.expire_ms.is_none() {
        out.put_i32(value.leader_epoch.0);
    }
    put_str(&mut out, &value.metadata)?;
    out.put_i64(value.commit_ms);
    if let Some(expire_ms) = value.expire_ms {
        out.put_i64(expire_ms);
    }
    Ok(out.freeze())
}

fn encode_group(value: &GroupValue) -> Result<Bytes, TooLong> {
    let mut out = BytesMut::with_capacity(64 + value.members.iter().map(MemberValue::bytes).sum::<usize>());
    out.put_i16(3);
    put_str(&mut out, &value.protocol_type)?;
    out.put_i32(value.generation_id);
    put_nullable_str(&mut out, value.protocol.as_deref())?;
    put_nullable_str(&mut out, value.leader.as_deref())?;
    out.put_i64(value.state_ms.unwrap_or(-1));
    out.put_i32(value.members.len() as i32);
    for member in &value.members {
        put_str(&mut out, &member.member_id)?;
        put_nullable_str(&mut out, member.instance_id.as_deref())?;
        put_str(&mut out, &member.client_id)?;
        put_str(&mut out, &member.client_host)?;
        out.put_i32(member.rebalance_timeout_ms);
        out.put_i32(member.session_timeout_ms);
        put_bytes(&mut out, &member.subscription);
        put_bytes(&mut out, &member.assignment);
    }
    Ok(out.freeze())
}

impl MemberValue {
    fn bytes(&self) -> usize {
        let texts = self.member_id.len() + self.client_id.len() + self.client_host.len();
        32 + texts + self.subscription.len() + self.assignment.len()
    }
}

/// Reads a key.
pub(crate) fn read_key(key: &[u8]) -> Result<Key<'_>, ReplayError> {
    let mut from = Reader::new(key);
    match from.i16()? {
        0 | 1 => Ok(Key::Offset { group: from.str()?, topic: from.str()?, partition: PartitionIndex(from.i32()?) }),
        2 => Ok(Key::Group { group: from.str()? }),
        version => Err(ReplayError::UnknownKeyVersion(version)),
    }
}

/// Reads the value of an offset commit.
pub(crate) fn read_offset(value: &[u8]) -> Result<OffsetValue, ReplayError> {
    let mut from = Reader::new(value);
    let version = from.version(VERSION_FLEXIBLE, VERSION_FLEXIBLE)?;
    let offset = Offset(from.i64()?);
    let leader_epoch = if version >= 3 { LeaderEpoch(from.i32()?) } else { LeaderEpoch::NONE };
    let metadata = from.str()?.into();
    let commit_ms = from.i64()?;
    let expire_ms = if version == 1 { Some(from.i64()?).filter(|&ms| ms != -1) } else { None };
    Ok(OffsetValue { offset, leader_epoch, metadata, commit_ms, expire_ms })
}

/// Reads the value of a group.
pub(crate) fn read_group(value: &[u8]) -> Result<GroupValue, ReplayError> {
    let mut from = Reader::new(value);
    let version = from.version(VERSION_FLEXIBLE, VERSION_FLEXIBLE)?;
    let protocol_type = from.str()?.to_owned();
    let generation_id = from.i32()?;
    let protocol = from.nullable_str()?.map(str::to_owned);
    let leader = from.nullable_str()?.map(Arc::from);
    let state_ms = if version >= 2 { Some(from.i64()?).filter(|&ms| ms != -1) } else { None };
    let count = from.count()?;
    let mut members = Vec::new();
    for _ in 0..count {
        let member_id = Arc::from(from.str()?);
        let instance_id = if version >= 3 { from.nullable_str()?.map(Arc::from) } else { None };
        let client_id = Arc::from(from.str()?);
        let client_host = Arc::from(from.str()?);
        let rebalance_timeout_ms = if version >= 1 { Some(from.i32()?) } else { None };
        let session_timeout_ms = from.i32()?;
        members.push(MemberValue {
            member_id,
            instance_id,
            client_id,
            client_host,
            rebalance_timeout_ms: rebalance_timeout_ms.unwrap_or(session_timeout_ms),
            session_timeout_ms,
            // Copies, so that a member does not keep the batch it was read from.
            subscription: Bytes::copy_from_slice(from.bytes()?),
            assignment: Bytes::copy_from_slice(from.bytes()?),
        });
        from.tags()?;
    }
    Ok(GroupValue { protocol_type, generation_id, protocol, leader, state_ms, members })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn group_value() -> GroupValue {
        GroupValue {
            protocol_type: "consumer".into(),
            generation_id: 3,
            protocol: Some("range".into()),
            leader: Some("m-1".into()),
            state_ms: Some(0x0102_0304),
            members: vec![MemberValue {
                member_id: "m-1".into(),
                instance_id: Some("i".into()),
                client_id: "c".into(),
                client_host: "/127.0.0.1".into(),
                rebalance_timeout_ms: 300_000,
                session_timeout_ms: 45_000,
                subscription: Bytes::from_static(&[0, 1]),
                assignment: Bytes::from_static(&[2]),
            }],
        }
    }

    fn offset_value() -> OffsetValue {
        OffsetValue {
            offset: Offset(42),
            leader_epoch: LeaderEpoch(7),
            metadata: "hi".into(),
            commit_ms: 0x1122,
            expire_ms: None,
        }
    }

    #[test]
    fn offset_commit_is_key_1_and_value_3() {
        let record = offset_record("g", "topic", PartitionIndex(2), Some(&offset_value())).expect("short");
        assert_eq!(hex(&record.key), "0001".to_owned() + "000167" + "0005746f706963" + "00000002");
        let value = record.value.expect("no tombstone");
        assert_eq!(hex(&value), "0003000000000000002a0000000700026869".to_owned() + "0000000000001122");
        assert_eq!(read_offset(&value), Ok(offset_value()));
    }

    #[test]
    fn an_explicit_retention_is_written_as_value_1() {
        let value = OffsetValue { expire_ms: Some(9), leader_epoch: LeaderEpoch::NONE, ..offset_value() };
        let record = offset_record("g", "t", PartitionIndex(0), Some(&value)).expect("short");
        let bytes = record.value.expect("no tombstone");
        assert_eq!(hex(&bytes), "0001000000000000002a000268690000000000001122".to_owned() + "0000000000000009");
        assert_eq!(read_offset(&bytes), Ok(value));
    }

    #[test]
    fn group_is_key_2_and_value_3() {
        let record = group_record("g", Some(&group_value())).expect("short");
        assert_eq!(hex(&record.key), "0002000167");
        let value = record.value.expect("no tombstone");
        let golden = [
            "0003",
            "0008636f6e73756d6572",
            "00000003",
            "000572616e6765",
            "00036d2d31",
            "0000000001020304",
            "00000001",
            "00036d2d31",
            "000169",
            "000163",
            "000a2f3132372e302e302e31",
            "000493e0",
            "0000afc8",
            "000000020001",
            "0000000102",
        ];
        assert_eq!(hex(&value), golden.concat());
        assert_eq!(read_group(&value), Ok(group_value()));
    }

    #[test]
    fn an_empty_group_has_null_protocol_and_leader() {
        let value = GroupValue { protocol: None, leader: None, members: Vec::new(), ..group_value() };
        let bytes = group_record("g", Some(&value)).expect("short").value.expect("no tombstone");
        assert_eq!(hex(&bytes[16..20]), "ffffffff");
        assert_eq!(read_group(&bytes), Ok(value));
    }

    #[test]
    fn a_tombstone_has_no_value() {
        assert_eq!(group_record("g", None).expect("short").value, None);
        assert_eq!(offset_record("g", "t", PartitionIndex(0), None).expect("short").value, None);
    }

    #[test]
    fn keys_of_version_0_are_read_and_newer_ones_named() {
        let mut key = offset_record("g", "t", PartitionIndex(5), None).expect("short").key.to_vec();
        key[1] = 0;
        assert_eq!(read_key(&key), Ok(Key::Offset { group: "g", topic: "t", partition: PartitionIndex(5) }));
        assert_eq!(read_key(&[0, 3, 0, 1, b'g']), Err(ReplayError::UnknownKeyVersion(3)));
    }

    #[test]
    fn flexible_values_are_read() {
        let offset = [&[0, 4][..], &42_i64.to_be_bytes(), &7_i32.to_be_bytes(), &[3], b"hi", &[0; 6], &[0x11, 0x22, 0]];
        assert_eq!(read_offset(&offset.concat()), Ok(offset_value()));
        let group = [
            &[0, 4, 9][..],
            b"consumer",
            &[0, 0, 0, 3, 6],
            b"range",
            &[4],
            b"m-1",
            &0x0102_0304_i64.to_be_bytes(),
            &[2, 4],
            b"m-1",
            &[2, b'i', 2, b'c', 11],
            b"/127.0.0.1",
            &300_000_i32.to_be_bytes(),
            &45_000_i32.to_be_bytes(),
            &[3, 0, 1, 2, 2],
            // one unknown tagged field on the member, none on the value
            &[1, 0, 2, 0xaa, 0xbb, 0],
        ];
        assert_eq!(read_group(&group.concat()), Ok(group_value()));
    }

    #[test]
    fn old_group_values_fall_back_to_the_session_timeout() {
        let version_0 = [
            &[0, 0, 0, 1, b'x', 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1][..],
            &[0, 1, b'm', 0, 1, b'c', 0, 1, b'h', 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0],
        ];
        let value = read_group(&version_0.concat()).expect("well formed");
        assert_eq!((value.state_ms, value.members[0].rebalance_timeout_ms), (None, 9));
    }

    #[test]
    fn every_truncation_is_malformed_and_nothing_is_reserved_by_a_count() {
        let group = group_record("g", Some(&group_value())).expect("short");
        let value = group.value.expect("no tombstone");
        assert!((0..value.len()).all(|end| read_group(&value[..end]).is_err()));
        assert!((0..group.key.len()).all(|end| read_key(&group.key[..end]).is_err()));
        let mut huge = value[..38].to_vec();
        huge.truncate(37);
        huge.extend_from_slice(&[0x7f, 0xff, 0xff, 0xff]);
        assert!(read_group(&huge).is_err());
    }

    #[test]
    fn a_string_that_does_not_fit_is_refused() {
        let long = "x".repeat(40_000);
        assert_eq!(offset_record(&long, "t", PartitionIndex(0), None), Err(TooLong(40_000)));
    }
}
