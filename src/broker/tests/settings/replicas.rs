//! Settings of a broker that follows others.

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::*;
use crate::broker::running::fetcher_settings;
use crate::cluster::registration::SharedBrokerEpoch;
use crate::replica::fetcher::Fetchers;
use crate::replica::leader_link::{
    FetchAnswer, FetchAsk, FetchRefused, LeaderLink, LeaderLinks, LinkError, LogEnd, SessionError,
};
use crate::replica::testing;
use crate::storage::PartitionId;
use crate::types::{BrokerId, LeaderEpoch, Offset};

fn configured(settings: &[&str]) -> Config {
    let overrides = settings.iter().map(|setting| (*setting).to_owned()).collect();
    Config::load(&Inputs { overrides, ..Inputs::default() }, Machine::for_test()).expect("legal")
}

/// A leader that never answers, and remembers when it was asked for what, by which fetcher.
#[derive(Debug, Default)]
struct Silent(Mutex<Vec<(u16, Instant, FetchAsk)>>);

#[derive(Debug)]
struct Way {
    leader: Arc<Silent>,
    fetcher: u16,
}

#[derive(Debug)]
struct Ways(Arc<Silent>);

impl LeaderLinks for Ways {
    fn link(&self, _: BrokerId, fetcher: u16) -> Arc<dyn LeaderLink> {
        Arc::new(Way { leader: Arc::clone(&self.0), fetcher })
    }
}

impl LeaderLink for Way {
    fn fetch(&self, ask: FetchAsk) -> BoxFuture<'_, Result<Result<FetchAnswer, SessionError>, LinkError>> {
        self.leader.0.lock().push((self.fetcher, Instant::now(), ask));
        ready(Err(LinkError("silent".into()))).boxed()
    }

    fn list_offset(
        &self,
        _: PartitionId,
        _: LeaderEpoch,
        _: LogEnd,
    ) -> BoxFuture<'_, Result<Result<Offset, FetchRefused>, LinkError>> {
        ready(Err(LinkError("silent".into()))).boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn a_follower_asks_as_is_set() {
    let config = configured(&[
        "num.replica.fetchers=3",
        "replica.fetch.backoff.ms=300",
        "replica.fetch.max.bytes=4000",
        "replica.fetch.min.bytes=7",
        "replica.fetch.response.max.bytes=5000",
        "replica.fetch.wait.max.ms=250",
    ]);
    let settings = fetcher_settings(&config);
    assert_eq!(settings.fetchers, 3);
    let leader = Arc::new(Silent::default());
    let ways = Arc::new(Ways(Arc::clone(&leader)));
    let fetchers = Fetchers::new(testing::ME, SharedBrokerEpoch::default(), ways, Arc::new(SystemClock), settings);
    let (partition, _) = testing::closed();
    testing::take(&partition, testing::role(2, 1));
    fetchers.follow(BrokerId(2), vec![(partition, LeaderEpoch(1))]);
    tokio::time::sleep(Duration::from_secs(10)).await;
    fetchers.stop_all().await;
    let asked = leader.0.lock();
    let (fetcher, _, ask) = asked.first().expect("it was asked");
    assert!(*fetcher < 3);
    assert_eq!((ask.max_bytes, ask.min_bytes), (5000, 7));
    assert!(ask.max_wait_ms < 250, "more partitions may come");
    assert_eq!(asked.last().expect("it was asked").2.max_wait_ms, 250);
    assert_eq!(ask.partitions[0].max_bytes, 4000);
    let pauses: Vec<Duration> = asked.windows(2).map(|two| two[1].1 - two[0].1).collect();
    let longest = pauses.iter().max().expect("it was asked again");
    assert!((300..310).contains(&longest.as_millis()), "{longest:?}");
    assert!(pauses[0] < Duration::from_millis(100), "the first pause is short: {pauses:?}");
}

/// What is set for brokers and topics while they run, over windows that are set at the start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replication_is_held_back_as_its_windows_say() {
    let windows = ["replication.quota.window.num=2", "replication.quota.window.size.seconds=10"];
    let mut probe = Probe::start(&windows).await;
    probe.create("t").await;
    let (replicas, topic) = (Arc::clone(&probe.broker.replicas), crate::types::TopicName::new("t"));
    let named = |leader: bool| {
        let throttles = replicas.throttles();
        let side = if leader { &throttles.leader } else { &throttles.follower };
        side.names(&topic, PartitionIndex(0))
    };
    assert!(!named(true) && !named(false));
    let here = format!("0:{}", replicas.me);
    probe.set("t", "leader.replication.throttled.replicas", &here).await;
    eventually("the leader's side is named", async || named(true)).await;
    probe.set("t", "follower.replication.throttled.replicas", "*").await;
    eventually("so is the follower's", async || named(false)).await;
    let (leader, follower) = (&replicas.throttles().leader, &replicas.throttles().follower);
    for side in [leader, follower] {
        side.count(1000, 0);
        assert!(!side.is_used_up(0), "no limit");
    }
    probe.set("", "leader.replication.throttled.rate", "60").await;
    probe.set("", "follower.replication.throttled.rate", "120").await;
    // A hundred bytes a second, in a window of ten.
    eventually("the leader's limit counts", async || leader.is_used_up(1000)).await;
    eventually("the follower's is another", async || !follower.is_used_up(1000)).await;
    assert!(leader.is_used_up(15_000) && !leader.is_used_up(20_000), "two windows are looked back at");
    probe.broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moves_between_directories_are_held_back_as_is_set() {
    let windows =
        ["alter.log.dirs.replication.quota.window.num=2", "alter.log.dirs.replication.quota.window.size.seconds=10"];
    let mut probe = Probe::start(&windows).await;
    let replicas = Arc::clone(&probe.broker.replicas);
    let moves = &replicas.throttles().log_dirs;
    moves.count(1000, 0);
    assert!(!moves.is_used_up(0), "no limit");
    probe.set("", "replica.alter.log.dirs.io.max.bytes.per.second", "60").await;
    // A hundred bytes a second, in a window of ten.
    eventually("the limit counts", async || moves.is_used_up(1000)).await;
    assert!(moves.is_used_up(15_000) && !moves.is_used_up(20_000), "two windows are looked back at");
    probe.broker.stop().await;
}
