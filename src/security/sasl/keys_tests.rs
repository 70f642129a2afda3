//! Keys at a URL, by a web that is played.

use super::super::testing::{Played, unreachable};
use super::*;
use crate::config::web_url::WebUrl;

const KEYS: &str = include_str!("testdata/jwks.json");

fn source(refresh_ms: i64, at: Place) -> KeySource {
    KeySource { at, refresh_ms, retry: RetryMs { first: 100, all: 1000 } }
}

async fn followed(web: &Arc<Played>, refresh_ms: i64) -> Result<Arc<FollowedKeys>, JwksError> {
    let url = WebUrl::parse("http://h/keys").expect("of the web").expect("a URL");
    let web: SharedWeb = Arc::clone(web) as _;
    FollowedKeys::follow(source(refresh_ms, Place::Web { url, tls: None }), &web).await
}

async fn pass(seconds: u64) {
    sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn without_keys_there_is_no_start_after_some_attempts() {
    for (answer, why) in [
        (Err(unreachable()), "the keys of http://h:80/keys cannot be had: it cannot be reached: gone"),
        (Ok(r#"{"keys":[]}"#), "http://h:80/keys is no set of keys: it has no RSA or EC key that signs"),
        (Ok("\u{1}"), "http://h:80/keys is no set of keys"),
    ] {
        let web = Played::new(answer);
        let error = followed(&web, 1000).await.expect_err("none").to_string();
        assert!(error.contains(why), "{error}");
        assert_eq!(web.asked(), 4);
    }
}

#[tokio::test(start_paused = true)]
async fn keys_are_had_again_at_the_interval_and_stay_where_they_cannot() {
    let few = KEYS.replace("\"sig\"", "\"enc\"");
    let web = Played::new(Ok(&few));
    let keys = followed(&web, 60_000).await.expect("keys");
    assert_eq!(web.asked(), 1);
    assert!(web.last().url.to_string() == "http://h:80/keys" && web.last().form.is_none());
    let before = keys.now();
    web.says(Ok(KEYS));
    pass(50).await;
    assert!(web.asked() == 1 && keys.now() == before);
    pass(15).await;
    assert!(web.asked() == 2 && keys.now() != before);
    let before = keys.now();
    web.says(Err(unreachable()));
    pass(63).await;
    // 0, 100, 300, 700 and 1000 ms.
    assert!(web.asked() == 7 && keys.now() == before);
    web.says(Ok("rubbish"));
    pass(63).await;
    assert!(web.asked() == 12 && keys.now() == before);
    web.says(Ok(r#"{"keys":[]}"#));
    pass(63).await;
    assert!(web.asked() == 13 && keys.now().is_empty(), "they were withdrawn");
    drop(keys);
    pass(200).await;
    assert_eq!(web.asked(), 13, "its task has ended");
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_not_known_is_asked_for_but_not_as_often_as_strangers_like() {
    let web = Played::new(Ok(KEYS));
    let keys = followed(&web, 3_600_000).await.expect("keys");
    keys.on_missing("new");
    pass(2).await;
    assert_eq!(web.asked(), 2, "at once");
    for _ in 0..10 {
        keys.on_missing("new");
        pass(2).await;
    }
    assert_eq!(web.asked(), 2, "and not again within a minute");
    pass(60).await;
    keys.on_missing("new");
    pass(2).await;
    assert_eq!(web.asked(), 3);
    // A stranger with a name for each token.
    for n in 0..10_000 {
        keys.on_missing(&format!("{n}"));
        sleep(Duration::from_millis(1)).await;
    }
    assert!((4..=15).contains(&web.asked()), "{} in ten seconds", web.asked());
    let asked = web.asked();
    pass(5).await;
    keys.on_missing(&"x".repeat(1001));
    pass(5).await;
    assert!(web.asked() <= asked + 1);
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_known_now_may_be_missed_again() {
    let few = KEYS.replace("\"sig\"", "\"enc\"");
    let web = Played::new(Ok(&few));
    let keys = followed(&web, 3_600_000).await.expect("keys");
    // The file's key of RSA is for encryption as yet.
    let id = "r";
    assert!(!keys.now().has(id));
    web.says(Ok(KEYS));
    keys.on_missing(id);
    pass(2).await;
    assert!(web.asked() == 2 && keys.now().has(id));
    web.says(Ok(&few));
    keys.on_missing(id);
    pass(2).await;
    assert!(web.asked() == 3 && !keys.now().has(id));
}

#[tokio::test]
async fn a_file_is_not_read_because_of_a_token() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("keys.json");
    std::fs::write(&path, KEYS).expect("written");
    let web = Played::new(Err(unreachable()));
    let shared: SharedWeb = Arc::clone(&web) as _;
    let keys = FollowedKeys::follow(source(3_600_000, Place::File(path)), &shared).await.expect("keys");
    keys.on_missing("new");
    assert!(keys.missing.lock().0.is_empty() && web.asked() == 0);
}

#[test]
fn names_that_were_asked_for_are_few() {
    let mut missing = Missing::default();
    let now = Instant::now();
    for n in 0..20 {
        assert!(missing.wants(&n.to_string(), now));
    }
    assert_eq!(missing.0.len(), Missing::COUNT_MAX);
    assert!(!missing.wants("19", now) && missing.wants("0", now), "the oldest went");
    missing.forget(|id| id == "19");
    assert!(missing.wants("19", now));
}
