//! The control messages against bytes that Kafka 3.9.1's own classes wrote, and against rubbish.

use std::fmt::Debug;

use super::*;
use crate::types::{LeaderEpoch, PartitionEpoch, PartitionIndex};
use crate::wire::codec;

fn bytes(hex: &str) -> BytesMut {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")).collect()
}

fn ids(ids: &[i32]) -> Vec<BrokerId> {
    ids.iter().copied().map(BrokerId).collect()
}

fn topic_id(high: u64, low: u64) -> TopicId {
    TopicId(uuid::Uuid::from_u64_pair(high, low))
}

const ORDERS: (u64, u64) = (0x0123_4567_89ab_cdef, 0x8123_4567_89ab_cdef);

fn orders() -> TopicId {
    topic_id(ORDERS.0, ORDERS.1)
}

fn head(broker_epoch: i64) -> Head {
    Head { controller: BrokerId(1), controller_epoch: ControllerEpoch(7), broker_epoch: BrokerEpoch(broker_epoch) }
}

/// Encoded, it is `golden`; decoded, `golden` is it.
fn both_ways<M: Message + PartialEq + Debug>(message: M, golden: &str) {
    assert_eq!(message.encode(), bytes(golden), "encoded");
    assert_eq!(M::decode(bytes(golden)).expect("it decodes"), message, "decoded");
}

fn leader_and_isr() -> LeaderAndIsr {
    let first = PartitionRole {
        partition: PartitionIndex(0),
        controller_epoch: ControllerEpoch(6),
        leader: BrokerId(2),
        leader_epoch: LeaderEpoch(9),
        isr: ids(&[2, 3]),
        partition_epoch: PartitionEpoch(14),
        replicas: ids(&[1, 2, 3]),
        adding: ids(&[3]),
        removing: ids(&[1]),
        is_new: true,
        recovery_state: 1,
    };
    let second = PartitionRole {
        partition: PartitionIndex(200),
        controller_epoch: ControllerEpoch(7),
        leader: BrokerId::NONE,
        leader_epoch: LeaderEpoch(10),
        isr: ids(&[2]),
        partition_epoch: PartitionEpoch(0),
        replicas: ids(&[2]),
        adding: vec![],
        removing: vec![],
        is_new: false,
        recovery_state: 0,
    };
    let other = topic_id(0x1111_1111_1111_1111, 0x9222_2222_2222_2222);
    LeaderAndIsr {
        head: head(4_294_967_298),
        topics: vec![
            Topic { name: "orders".into(), id: orders(), partitions: vec![first, second] },
            Topic { name: "b".into(), id: other, partitions: vec![] },
        ],
    }
}

fn update_metadata() -> UpdateMetadata {
    let led = PartitionMetadata {
        partition: PartitionIndex(0),
        controller_epoch: ControllerEpoch(6),
        leader: BrokerId(2),
        leader_epoch: LeaderEpoch(9),
        isr: ids(&[2, 3]),
        partition_epoch: PartitionEpoch(14),
        replicas: ids(&[1, 2, 3]),
        offline_replicas: ids(&[1]),
    };
    let deleted = PartitionMetadata {
        partition: PartitionIndex(1),
        controller_epoch: ControllerEpoch(7),
        leader: PartitionMetadata::BEING_DELETED,
        leader_epoch: LeaderEpoch(0),
        isr: vec![],
        partition_epoch: PartitionEpoch(0),
        replicas: vec![],
        offline_replicas: vec![],
    };
    let endpoint = |port, host: &str, listener: &str, security_protocol| BrokerEndpoint {
        port,
        host: host.into(),
        listener: listener.into(),
        security_protocol,
    };
    let first = vec![endpoint(9092, "host-1", "INTERNAL", 0), endpoint(9093, "host-1", "OUT", 3)];
    let second = vec![endpoint(65_535, "host-2", "INTERNAL", 0)];
    UpdateMetadata {
        head: head(99),
        topics: vec![Topic { name: "orders".into(), id: orders(), partitions: vec![led, deleted] }],
        live_brokers: vec![
            Broker { id: BrokerId(1), endpoints: first, rack: Some("r1".into()) },
            Broker { id: BrokerId(2), endpoints: second, rack: None },
        ],
    }
}

fn stop_replica() -> StopReplica {
    let stop =
        |partition, leader_epoch, delete| StopPartition { partition: PartitionIndex(partition), leader_epoch, delete };
    let partitions = vec![stop(0, LeaderEpoch(9), false), stop(1, StopPartition::DURING_DELETE, true)];
    StopReplica { head: head(99), topics: vec![("orders".into(), partitions), ("b".into(), vec![])] }
}

fn leader_and_isr_answer() -> LeaderAndIsrAnswer {
    let answer =
        |partition, error_code| RoleAnswer { partition: PartitionIndex(partition), error_code, end_lost: false };
    LeaderAndIsrAnswer { error_code: 0, topics: vec![(orders(), vec![answer(0, 0), answer(200, 56)])] }
}

fn stop_replica_answer() -> StopReplicaAnswer {
    let partitions = vec![("orders".into(), PartitionIndex(0), 74), ("orders".into(), PartitionIndex(1), 0)];
    StopReplicaAnswer { error_code: 0, partitions }
}

fn controlled_shutdown_answer() -> ControlledShutdownAnswer {
    let remaining = vec![("orders".into(), PartitionIndex(4)), ("b".into(), PartitionIndex(0))];
    ControlledShutdownAnswer { error_code: 0, remaining }
}

#[test]
fn requests_are_byte_for_byte_kafkas() {
    both_ways(
        leader_and_isr(),
        "00000001000000000700000001000000020003076f72646572730123456789abcdef8123456789abcdef03000000000000000600000002000000090300000002000000030000000e0400000001000000020000000302000000030200000001010100000000c800000007ffffffff0000000a020000000200000000020000000201010000000002621111111111111111922222222222222201000100",
    );
    both_ways(
        update_metadata(),
        "000000010000000007000000000000006302076f72646572730123456789abcdef8123456789abcdef03000000000000000600000002000000090300000002000000030000000e040000000100000002000000030200000001000000000100000007fffffffe000000000100000000010100000300000001030000238407686f73742d3109494e5445524e414c0000000000238507686f73742d31044f55540003000372310000000002020000ffff07686f73742d3209494e5445524e414c000000000000",
    );
    both_ways(
        stop_replica(),
        "000000010000000007000000000000006303076f7264657273030000000000000009000000000001fffffffe0100000262010000",
    );
    both_ways(ControlledShutdown { broker: BrokerId(3), broker_epoch: BrokerEpoch(99) }, "00000003000000000000006300");
}

#[test]
fn answers_are_byte_for_byte_kafkas() {
    both_ways(leader_and_isr_answer(), "0000020123456789abcdef8123456789abcdef0300000000000000000000c80038000000");
    both_ways(LeaderAndIsrAnswer { error_code: 11, topics: vec![] }, "000b0100");
    both_ways(UpdateMetadataAnswer { error_code: 77 }, "004d00");
    both_ways(stop_replica_answer(), "000003076f726465727300000000004a00076f72646572730000000100000000");
    both_ways(controlled_shutdown_answer(), "000003076f726465727300000004000262000000000000");
}

#[test]
fn what_a_kafka_controller_sends_and_no_broker_needs_is_skipped() {
    let live_leaders = "00000001000000000700000001000000020003076f72646572730123456789abcdef8123456789abcdef03000000000000000600000002000000090300000002000000030000000e0400000001000000020000000302000000030200000001010100000000c800000007ffffffff0000000a02000000020000000002000000020101000000000262111111111111111192222222222222220100020000000207686f73742d32000023840000";
    assert_eq!(LeaderAndIsr::decode(bytes(live_leaders)).expect("it decodes"), leader_and_isr());
    let with_type = "000000010000000007000000000000006302076f72646572730123456789abcdef8123456789abcdef03000000000000000600000002000000090300000002000000030000000e040000000100000002000000030200000001000000000100000007fffffffe000000000100000000010100000300000001030000238407686f73742d3109494e5445524e414c0000000000238507686f73742d31044f55540003000372310000000002020000ffff07686f73742d3209494e5445524e414c000000000001000102";
    assert_eq!(UpdateMetadata::decode(bytes(with_type)).expect("it decodes"), update_metadata());
}

#[test]
fn a_lost_end_is_a_storage_error_with_a_tag() {
    let answer = RoleAnswer { partition: PartitionIndex(3), error_code: 56, end_lost: true };
    let message = LeaderAndIsrAnswer { error_code: 0, topics: vec![(orders(), vec![answer])] };
    both_ways(message, "0000020123456789abcdef8123456789abcdef0200000003003801904e000000");
}

#[test]
fn all_of_them_are_flexible() {
    for (key, version) in [
        (LeaderAndIsr::KEY, LeaderAndIsr::VERSION),
        (StopReplica::KEY, StopReplica::VERSION),
        (UpdateMetadata::KEY, UpdateMetadata::VERSION),
        (ControlledShutdown::KEY, ControlledShutdown::VERSION),
    ] {
        assert!(codec::is_flexible(key, version), "key {key}");
    }
}

/// A source of numbers from a seed (SplitMix64).
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn i32(&mut self) -> i32 {
        self.next() as i32
    }

    fn up_to(&mut self, max: u64) -> usize {
        (self.next() % (max + 1)) as usize
    }

    fn text(&mut self) -> String {
        let length = if self.up_to(9) == 0 { 300 } else { self.up_to(12) };
        (0..length).map(|_| ['a', 'Z', '.', 'ü', '9'][self.up_to(4)]).collect()
    }

    fn brokers(&mut self) -> Vec<BrokerId> {
        (0..self.up_to(4)).map(|_| BrokerId(self.i32())).collect()
    }

    fn id(&mut self) -> TopicId {
        topic_id(self.next(), self.next())
    }

    fn head(&mut self) -> Head {
        Head {
            controller: BrokerId(self.i32()),
            controller_epoch: ControllerEpoch(self.i32()),
            broker_epoch: BrokerEpoch(self.next() as i64),
        }
    }

    fn role(&mut self) -> PartitionRole {
        PartitionRole {
            partition: PartitionIndex(self.i32()),
            controller_epoch: ControllerEpoch(self.i32()),
            leader: BrokerId(self.i32()),
            leader_epoch: LeaderEpoch(self.i32()),
            isr: self.brokers(),
            partition_epoch: PartitionEpoch(self.i32()),
            replicas: self.brokers(),
            adding: self.brokers(),
            removing: self.brokers(),
            is_new: self.up_to(1) == 0,
            recovery_state: self.next() as i8,
        }
    }

    fn metadata(&mut self) -> PartitionMetadata {
        PartitionMetadata {
            partition: PartitionIndex(self.i32()),
            controller_epoch: ControllerEpoch(self.i32()),
            leader: BrokerId(self.i32()),
            leader_epoch: LeaderEpoch(self.i32()),
            isr: self.brokers(),
            partition_epoch: PartitionEpoch(self.i32()),
            replicas: self.brokers(),
            offline_replicas: self.brokers(),
        }
    }

    fn broker(&mut self) -> Broker {
        let endpoint = |draw: &mut Self| BrokerEndpoint {
            port: draw.i32(),
            host: draw.text(),
            listener: draw.text(),
            security_protocol: draw.next() as i16,
        };
        Broker {
            id: BrokerId(self.i32()),
            endpoints: (0..self.up_to(3)).map(|_| endpoint(self)).collect(),
            rack: (self.up_to(1) == 0).then(|| self.text()),
        }
    }

    fn list<T>(&mut self, mut one: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.up_to(5)).map(|_| one(self)).collect()
    }

    fn name(&mut self) -> TopicName {
        TopicName::new(&self.text())
    }
}

/// It comes back whole, no beginning of it is taken for a message, and with bytes changed it is read or refused.
fn survives<M: Message + PartialEq + Debug>(message: M, draw: &mut Draw) {
    let encoded = message.encode();
    assert_eq!(M::decode(BytesMut::from(&encoded[..])).as_ref(), Ok(&message));
    let mut longer = BytesMut::from(&encoded[..]);
    longer.extend_from_slice(b"more");
    assert_eq!(M::decode(longer).as_ref(), Ok(&message), "what follows is ignored");
    for cut in 0..encoded.len() {
        assert!(M::decode(BytesMut::from(&encoded[..cut])).is_err(), "cut at {cut}");
    }
    for _ in 0..50 {
        let mut garbage = BytesMut::from(&encoded[..]);
        for _ in 0..=draw.up_to(3) {
            let at = draw.up_to(garbage.len() as u64 - 1);
            garbage[at] = draw.next() as u8;
        }
        drop(M::decode(garbage));
    }
}

#[test]
fn whatever_is_sent_comes_back_and_nothing_panics() {
    for seed in 0..60 {
        let draw = &mut Draw(seed);
        let roles = |draw: &mut Draw| Topic { name: draw.name(), id: draw.id(), partitions: draw.list(Draw::role) };
        let message = LeaderAndIsr { head: draw.head(), topics: draw.list(roles) };
        survives(message, draw);
        let topic = |draw: &mut Draw| Topic { name: draw.name(), id: draw.id(), partitions: draw.list(Draw::metadata) };
        let message =
            UpdateMetadata { head: draw.head(), topics: draw.list(topic), live_brokers: draw.list(Draw::broker) };
        survives(message, draw);
        let stop = |draw: &mut Draw| StopPartition {
            partition: PartitionIndex(draw.i32()),
            leader_epoch: LeaderEpoch(draw.i32()),
            delete: draw.up_to(1) == 0,
        };
        let topics = draw.list(|draw| (draw.name(), draw.list(stop)));
        survives(StopReplica { head: draw.head(), topics }, draw);
        let message =
            ControlledShutdown { broker: BrokerId(draw.i32()), broker_epoch: BrokerEpoch(draw.next() as i64) };
        survives(message, draw);
        answers_survive(draw);
    }
}

fn answers_survive(draw: &mut Draw) {
    let role = |draw: &mut Draw| RoleAnswer {
        partition: PartitionIndex(draw.i32()),
        error_code: draw.next() as i16,
        end_lost: draw.up_to(3) == 0,
    };
    let topics = draw.list(|draw| (draw.id(), draw.list(role)));
    survives(LeaderAndIsrAnswer { error_code: draw.next() as i16, topics }, draw);
    survives(UpdateMetadataAnswer { error_code: draw.next() as i16 }, draw);
    let partitions = draw.list(|draw| (draw.name(), PartitionIndex(draw.i32()), draw.next() as i16));
    survives(StopReplicaAnswer { error_code: draw.next() as i16, partitions }, draw);
    let remaining = draw.list(|draw| (draw.name(), PartitionIndex(draw.i32())));
    survives(ControlledShutdownAnswer { error_code: draw.next() as i16, remaining }, draw);
}

#[test]
fn absurd_counts_are_refused_before_anything_is_reserved() {
    let head = [0; 17];
    // 2^28 − 2 topics in a frame of a hundred bytes.
    for count in [&[0xff, 0xff, 0xff, 0x7f][..], &[0xff, 0xff, 0xff, 0xff, 0x0f], &[0x40]] {
        let body: Vec<u8> = head.iter().chain(count).chain(&[0; 80]).copied().collect();
        assert!(StopReplica::decode(BytesMut::from(&body[..])).is_err(), "{count:?}");
        assert!(UpdateMetadata::decode(BytesMut::from(&body[..])).is_err(), "{count:?}");
        let body: Vec<u8> = [0; 18].iter().chain(count).chain(&[0; 80]).copied().collect();
        assert!(LeaderAndIsr::decode(BytesMut::from(&body[..])).is_err(), "{count:?}");
    }
}
