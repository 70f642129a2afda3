//! Requests while there is no room for more of them, `queued.max.request.bytes`: a client that does not read its
//! replies holds up nobody but itself.

use super::*;

/// Half of it is for requests that are answered, half for large frames that come in.
const CROWDED: [&str; 3] =
    ["socket.request.max.bytes=1048576", "queued.max.request.bytes=1048576", "socket.send.buffer.bytes=32768"];
const HALF: usize = 512 << 10;
/// No two frames of this size have room at once.
const LARGE: usize = 450 << 10;
/// How long the reply that nobody reads is not there yet.
const REPLY_AFTER: Duration = Duration::from_millis(1500);
/// After that it fills the socket.
const BLOCKED_AFTER: Duration = Duration::from_millis(2500);
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);

/// A broker with more in `t` than a socket takes, and nothing in `empty`.
async fn crowded(dir: &Path) -> Broker {
    let broker = start_with(dir, &CROWDED).await;
    let mut client = WireClient::connect(&broker).await;
    create(&mut client, "t").await;
    create(&mut client, "empty").await;
    for _ in 0..10 {
        assert_eq!(produce_large(&mut client).await, 0);
    }
    broker
}

async fn produce_large(client: &mut WireClient) -> i16 {
    let response = client.call(&produce("t", &["x".repeat(LARGE).as_str()]), 9).await;
    response.responses[0].partition_responses[0].error_code
}

/// A fetch of everything that is not answered before `after`.
fn fetch_after(name: &str, after: Duration) -> FetchRequest {
    let mut fetch = fetch(name, 0);
    fetch.topics[0].partitions[0].partition_max_bytes = 64 << 20;
    fetch.with_min_bytes(32 << 20).with_max_bytes(64 << 20).with_max_wait_ms(after.as_millis() as i32)
}

/// The beginning of a large frame.
async fn begin_large(client: &mut WireClient) {
    client.stream.write_all(&(LARGE as i32).to_be_bytes()).await.unwrap();
    client.stream.write_all(&vec![0; LARGE / 2]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_a_reply_keeps_no_place_before_large_frames() {
    let dir = tempfile::tempdir().unwrap();
    let broker = crowded(dir.path()).await;
    let (mut holder, mut deaf, mut other) =
        (WireClient::connect(&broker).await, WireClient::connect(&broker).await, WireClient::connect(&broker).await);
    begin_large(&mut holder).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    deaf.send(&fetch_after("t", REPLY_AFTER), 12).await;
    begin_large(&mut deaf).await;
    tokio::time::sleep(BLOCKED_AFTER).await;
    drop(holder);
    let answered = tokio::time::timeout(ANSWERED_WITHIN, produce_large(&mut other)).await;
    assert_eq!(answered.expect("it has its turn"), 0);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_a_reply_keeps_no_place_before_whole_requests() {
    let dir = tempfile::tempdir().unwrap();
    let broker = crowded(dir.path()).await;
    let (mut holder, mut deaf, mut other) =
        (WireClient::connect(&broker).await, WireClient::connect(&broker).await, WireClient::connect(&broker).await);
    deaf.send(&fetch_after("t", REPLY_AFTER), 12).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let rack = StrBytes::from_string("r".repeat(HALF));
    holder.send(&fetch_after("empty", BLOCKED_AFTER).with_rack_id(rack), 12).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    deaf.send(&MetadataRequest::default(), 12).await;
    holder.receive::<FetchRequest>(1, 12).await;
    let answered = tokio::time::timeout(ANSWERED_WITHIN, other.call(&MetadataRequest::default(), 12)).await;
    assert!(answered.is_ok(), "it has its turn");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_a_reply_does_not_keep_the_room_of_its_next_frame() {
    let dir = tempfile::tempdir().unwrap();
    let broker = crowded(dir.path()).await;
    let (mut deaf, mut other) = (WireClient::connect(&broker).await, WireClient::connect(&broker).await);
    deaf.send(&fetch_after("t", REPLY_AFTER), 12).await;
    begin_large(&mut deaf).await;
    tokio::time::sleep(BLOCKED_AFTER).await;
    let answered = tokio::time::timeout(ANSWERED_WITHIN, produce_large(&mut other)).await;
    assert_eq!(answered.expect("it has its turn"), 0);
    broker.stop().await;
}
