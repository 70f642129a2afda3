//! Replication that is held back: so many bytes each second of the replicas that are named, on the leader's side and on
//! the follower's.
//!
//! Only replicas that are behind are held back: a leader leaves those that are not in sync out of answers while its
//! rate is used up, and a follower those that are not level out of what it asks. What is let through counts whole, so
//! the rate may be passed by an answer. Source: Kafka 3.9 `ReplicationQuotaManager`, KIP-73.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use crate::metrics::rate::{Rate, Windows};
use crate::types::{BrokerId, PartitionIndex, TopicName};

/// What one broker holds back.
#[derive(Debug)]
pub(crate) struct Throttles {
    pub(crate) leader: Throttle,
    pub(crate) follower: Throttle,
    /// Moves between log directories, all of them, named or not.
    pub(crate) log_dirs: Throttle,
}

/// One side.
#[derive(Debug)]
pub(crate) struct Throttle {
    windows: Windows,
    /// Bytes each second; `u64::MAX`: no limit.
    limit: AtomicU64,
    /// Whether any replica is named.
    any: AtomicBool,
    replicas: RwLock<HashMap<TopicName, Named>>,
    rate: Mutex<Rate>,
}

/// Which replicas of a topic this broker has that are named.
#[derive(Debug, PartialEq)]
enum Named {
    All,
    These(BTreeSet<PartitionIndex>),
}

impl Throttles {
    pub(crate) fn new(replication: Windows, log_dirs: Windows) -> Self {
        let [leader, follower] = [replication; 2].map(Throttle::new);
        Self { leader, follower, log_dirs: Throttle::new(log_dirs) }
    }
}

/// With Kafka's windows.
impl Default for Throttles {
    fn default() -> Self {
        let windows = Windows { samples: 11, window_ms: 1000 };
        Self::new(windows, windows)
    }
}

impl Throttle {
    fn new(windows: Windows) -> Self {
        let (limit, any, rate) = (AtomicU64::new(u64::MAX), AtomicBool::new(false), Mutex::new(Rate::new()));
        Self { windows, limit, any, replicas: RwLock::default(), rate }
    }

    /// Bytes each second; `u64::MAX`: no limit.
    pub(crate) fn set_limit(&self, bytes: u64) {
        self.limit.store(bytes, Ordering::Relaxed);
    }

    /// The topic's replicas that are named, each as `partition:broker`, or `*` for all; none takes back what was named.
    pub(crate) fn name(&self, topic: &TopicName, list: &[String], me: BrokerId) {
        let mut replicas = self.replicas.write();
        match Named::of(list, me) {
            Some(named) => replicas.insert(topic.clone(), named),
            None => replicas.remove(topic),
        };
        self.any.store(!replicas.is_empty(), Ordering::Release);
    }

    /// Whether this replica is named.
    pub(crate) fn names(&self, topic: &TopicName, partition: PartitionIndex) -> bool {
        if !self.any.load(Ordering::Acquire) {
            return false;
        }
        match self.replicas.read().get(topic) {
            Some(Named::All) => true,
            Some(Named::These(partitions)) => partitions.contains(&partition),
            None => false,
        }
    }

    /// Whether more is on its way already than the limit allows.
    pub(crate) fn is_used_up(&self, now_ms: i64) -> bool {
        let limit = self.limit.load(Ordering::Relaxed);
        limit != u64::MAX && self.rate.lock().per_second_of_elapsed(self.windows, now_ms) > limit as f64
    }

    /// Counts what a replica that is named was sent, or has got.
    pub(crate) fn count(&self, bytes: usize, now_ms: i64) {
        if bytes > 0 {
            self.rate.lock().record(self.windows, bytes as f64, now_ms);
        }
    }
}

impl Named {
    /// What cannot be read, which only somebody else can have stored, names nothing.
    fn of(list: &[String], me: BrokerId) -> Option<Self> {
        if list.iter().any(|element| element.trim() == "*") {
            return Some(Self::All);
        }
        let mine = |element: &String| {
            let (partition, broker) = element.trim().split_once(':')?;
            let broker: i32 = broker.trim().parse().ok()?;
            (BrokerId(broker) == me).then_some(PartitionIndex(partition.trim().parse().ok()?))
        };
        let these: BTreeSet<PartitionIndex> = list.iter().filter_map(mine).collect();
        (!these.is_empty()).then_some(Self::These(these))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: BrokerId = BrokerId(1);

    fn named(list: &[&str]) -> Throttle {
        let throttle = Throttles::default().leader;
        let list: Vec<String> = list.iter().map(|element| (*element).to_owned()).collect();
        throttle.name(&"t".into(), &list, ME);
        throttle
    }

    #[test]
    fn replicas_of_this_broker_are_named_or_all_are() {
        let names = |throttle: &Throttle, topic: &str, index| throttle.names(&topic.into(), PartitionIndex(index));
        let some = named(&["0:1", "1:2", " 2 : 1", "x"]);
        assert_eq!([0, 1, 2].map(|index| names(&some, "t", index)), [true, false, true]);
        assert!(!names(&some, "u", 0));
        let all = named(&["*"]);
        assert!(names(&all, "t", 9));
        all.name(&"t".into(), &[], ME);
        assert!(!names(&all, "t", 9));
        assert!(!names(&named(&["0:2"]), "t", 0));
    }

    #[test]
    fn the_rate_is_that_of_the_time_there_was() {
        let throttle = named(&["*"]);
        throttle.count(1 << 30, 0);
        assert!(!throttle.is_used_up(0), "no limit");
        throttle.set_limit(1000);
        assert!(throttle.is_used_up(0) && throttle.is_used_up(10_000), "eleven windows are looked back at");
        assert!(!throttle.is_used_up(11_000));
        throttle.count(1500, 11_000);
        assert!(throttle.is_used_up(11_500), "a second at least");
        assert!(!throttle.is_used_up(12_500));
    }
}
