//! Settings that say when records are synced to disk.

use super::*;

/// Long enough for a sync that nothing asks for to be seen, if there were one.
const A_WHILE: Duration = Duration::from_millis(200);

impl Probe {
    fn syncs(&self) -> u64 {
        self.broker.dirs[0].syncs()
    }

    /// With a topic whose creation has no syncs left to come.
    async fn at_rest(settings: &[&str]) -> Self {
        let mut probe = Self::start(settings).await;
        probe.create("t").await;
        probe.rest().await;
        probe
    }

    /// Until syncs of creations and changes are over.
    async fn rest(&self) {
        let mut before = u64::MAX;
        eventually("the broker comes to rest", async || {
            let rested = before == self.syncs();
            before = self.syncs();
            tokio::time::sleep(A_WHILE).await;
            rested
        })
        .await;
    }

    /// Whether a produced record is synced without another one.
    async fn syncs_by_itself(&mut self, topic: &str) {
        let before = self.syncs();
        assert_eq!(self.produce(topic, &["v"]).await, 0);
        eventually("the record is synced", async || self.syncs() > before).await;
    }

    /// How many syncs there are when as many single records were acknowledged.
    async fn syncs_of(&mut self, records: usize) -> u64 {
        let before = self.syncs();
        for _ in 0..records {
            assert_eq!(self.produce("t", &["v"]).await, 0);
        }
        self.syncs() - before
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_are_synced_in_time_where_a_time_is_set() {
    for setting in ["log.flush.interval.ms=20", "log.flush.scheduler.interval.ms=20"] {
        Probe::at_rest(&[setting]).await.syncs_by_itself("t").await;
    }
    let mut probe = Probe::at_rest(&[]).await;
    let before = probe.syncs();
    assert_eq!(probe.produce("t", &["v"]).await, 0);
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(probe.syncs(), before, "by default nothing is synced");
    probe.set("t", "flush.ms", "20").await;
    probe.rest().await;
    probe.syncs_by_itself("t").await;
    probe.set("t", "flush.ms", "9223372036854775807").await;
    probe.set("", "log.flush.interval.ms", "30").await;
    probe.rest().await;
    assert_eq!(probe.syncs_of(3).await, 0, "the topic's own setting counts");
    probe.create("u").await;
    probe.rest().await;
    probe.syncs_by_itself("u").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_so_many_records_are_synced_where_a_count_is_set() {
    let mut probe = Probe::at_rest(&["log.flush.interval.messages=3"]).await;
    assert_eq!(probe.syncs_of(7).await, 2);
    probe.set("t", "flush.messages", "1").await;
    probe.rest().await;
    assert_eq!(probe.syncs_of(3).await, 3);
    probe.set("t", "flush.messages", "1000").await;
    probe.rest().await;
    assert_eq!(probe.syncs_of(3).await, 0);
}
