//! Members of a group whose broker, or whose followers, stood still for a while: who is late, and who could not be
//! heard.

use std::sync::Arc;
use std::time::Duration;

use super::coordinator_tests::{Kit, settle};
use super::request::HeartbeatRequest;

/// A heartbeat of the one member of group "m".
fn beat_of(member_id: Arc<str>) -> HeartbeatRequest {
    HeartbeatRequest { group: "m".into(), member_id, instance_id: None, generation_id: 1 }
}

/// The heartbeat had come in time, and waited behind appends that followers were slow to take: the member was thrown
/// out when they had.
#[tokio::test(start_paused = true)]
async fn who_was_heard_while_followers_stood_still_is_not_late() {
    let kit = Kit::elected().await;
    let beat = beat_of(kit.member().await);
    tokio::time::sleep(Duration::from_millis(5500)).await;
    kit.log.hold(true);
    let mut commits = Vec::new();
    for offset in 0..8 {
        commits.push(kit.commit(offset).await);
        settle().await;
    }
    tokio::time::sleep(Duration::from_secs(4)).await;
    let beaten = kit.groups.heartbeat(beat).await;
    // Late by less than what gives everybody a moment more.
    tokio::time::sleep(Duration::from_millis(520)).await;
    kit.log.hold(false);
    assert_eq!(beaten.await, Ok(()));
    for commit in commits {
        assert_eq!(commit.await.error, None);
    }
    assert_eq!(kit.members().await, 1);
}

/// A process that had stood still threw all out whose heartbeats it had not read yet.
#[tokio::test(start_paused = true)]
async fn who_could_not_be_heard_has_a_moment_more() {
    let kit = Kit::elected().await;
    let beat = beat_of(kit.member().await);
    for _ in 0..2 {
        tokio::time::advance(Duration::from_secs(15)).await;
        settle().await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(kit.groups.heartbeat(beat.clone()).await.await, Ok(()));
    }
    // Served again, which has to be now and then.
    tokio::time::sleep(Duration::from_millis(2100)).await;
    assert_eq!(kit.groups.heartbeat(beat).await.await, Ok(()));
    tokio::time::advance(Duration::from_secs(15)).await;
    settle().await;
    assert_eq!(kit.members().await, 1);
    tokio::time::sleep(Duration::from_millis(2100)).await;
    assert_eq!(kit.members().await, 0, "it said nothing");
}

/// A standstill that ended just in time for the end of the sessions threw out all that it had kept from being heard.
#[tokio::test(start_paused = true)]
async fn a_standstill_that_ends_with_the_session_counts_as_well() {
    let kit = Kit::elected().await;
    let beat = beat_of(kit.member().await);
    tokio::time::advance(Duration::from_millis(10_015)).await;
    settle().await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(kit.groups.heartbeat(beat).await.await, Ok(()));
}

/// One standstill after the other put off for ever what was due.
#[tokio::test(start_paused = true)]
async fn time_passes_for_who_is_never_served_in_time() {
    let kit = Kit::elected().await;
    kit.member().await;
    for _ in 0..10 {
        tokio::time::advance(Duration::from_millis(1900)).await;
        settle().await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(kit.members().await, 0);
}
