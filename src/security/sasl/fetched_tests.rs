//! Tokens of a provider, by a web that is played.

use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use super::super::testing::{Played, unreachable};
use super::*;
use crate::clock::testing::ManualClock;
use crate::config::oauth::RetryMs;
use crate::config::token_source::Refresh;
use crate::config::web_url::WebUrl;

const NOW_MS: UnixMs = 1_700_000_000_000;

fn source() -> TokenSource {
    TokenSource {
        at: Place::Web { url: WebUrl::parse("http://h/tokens").expect("of the web").expect("a URL"), tls: None },
        client: Some(OauthClient {
            id: "broker".into(),
            secret: Secret::new("hunter2"),
            scope: Some(" a b&\u{e9} ".into()),
        }),
        retry: RetryMs { first: 100, all: 1000 },
        patience: (None, Some(Duration::from_secs(7))),
        refresh: Refresh { window: 0.8, jitter: 0.05, after_ms: 60_000, before_ms: 300_000 },
        scope_claim: "scope".into(),
        principal_claim: "sub".into(),
        extensions: [("traceId".to_owned(), "x".to_owned())].into(),
    }
}

fn token(claims: &serde_json::Value) -> String {
    let part = |text: String| URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}.{}", part(json!({"alg": "RS256"}).to_string()), part(claims.to_string()), part("signed".into()))
}

/// The answer of a provider; the token holds for so many seconds.
fn answer(name: &str, seconds: i64) -> String {
    let claims = json!({"sub": name, "iat": NOW_MS / 1000, "exp": NOW_MS / 1000 + seconds});
    json!({"access_token": token(&claims), "token_type": "Bearer"}).to_string()
}

async fn followed(web: &Arc<Played>, source: TokenSource) -> Result<Arc<FollowedToken>, TokenError> {
    let clock = Arc::new(ManualClock::new(NOW_MS, 7));
    let followed = FollowedToken::follow(source, Arc::clone(web) as _, clock.clone() as _).await?;
    // The wall clock goes on as the paused one does.
    let ticking = Arc::downgrade(&followed);
    task::spawn_owner("a clock", async move {
        while ticking.upgrade().is_some() {
            sleep(Duration::from_secs(1)).await;
            clock.advance(1000);
        }
    });
    Ok(followed)
}

fn shown(followed: &FollowedToken) -> String {
    String::from_utf8(followed.first()).expect("text")
}

#[tokio::test(start_paused = true)]
async fn it_is_asked_for_by_the_grant_of_client_credentials() {
    let given = answer("broker", 3600);
    let web = Played::new(Ok(&given));
    let followed = followed(&web, source()).await.expect("a token");
    let question = web.last();
    let form = question.form.expect("a form");
    assert_eq!(
        (question.url.to_string().as_str(), question.patience),
        ("http://h:80/tokens", (PATIENCE, Duration::from_secs(7)))
    );
    assert_eq!(form.authorization.reveal(), format!("Basic {}", BASE64.encode("broker:hunter2")));
    assert_eq!(form.fields, "grant_type=client_credentials&scope=a+b%26%C3%A9");
    let token = token_of(given.as_bytes()).expect("one");
    assert_eq!(shown(&followed), format!("n,,\u{1}auth=Bearer {token}\u{1}traceId=x\u{1}\u{1}"));
}

#[tokio::test(start_paused = true)]
async fn without_a_token_there_is_no_start_and_what_may_pass_is_tried_again() {
    let refused = |status| Err(WebError::Status { status, said: " (invalid_client - no hunter2)".into() });
    let none = json!({"access_token": 1}).to_string();
    let nobodys = json!({"access_token": token(&json!({"exp": 1}))}).to_string();
    for (answer, attempts, why) in [
        (Err(unreachable()), 5, "it cannot be reached: gone"),
        (refused(503), 5, "the status 503"),
        (refused(401), 1, "the status 401 (invalid_client - no [hidden])"),
        (Ok(none.as_str()), 1, "no access_token"),
        (Ok("<html>"), 1, "no access_token"),
        (Ok(nobodys.as_str()), 1, "no claim names the principal"),
    ] {
        let web = Played::new(answer);
        let error = followed(&web, source()).await.expect_err("none").to_string();
        assert!(error.contains(why) && error.contains("http://h:80/tokens"), "{error}");
        assert_eq!(web.asked(), attempts, "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_next_one_is_asked_for_before_the_last_one_ends() {
    let (first, second) = (answer("one", 3600), answer("two", 7200));
    let web = Played::new(Ok(&first));
    let followed = followed(&web, source()).await.expect("a token");
    let before = shown(&followed);
    web.says(Ok(&second));
    sleep(Duration::from_secs(2850)).await;
    assert!(web.asked() == 1 && shown(&followed) == before, "0.8 of its life have not passed");
    sleep(Duration::from_secs(260)).await;
    assert!(web.asked() == 2 && shown(&followed) != before, "0.85 have");
    drop(followed);
    sleep(Duration::from_secs(7200)).await;
    assert_eq!(web.asked(), 2, "its task has ended");
}

#[tokio::test(start_paused = true)]
async fn where_none_is_given_the_last_one_stays_and_it_is_asked_again() {
    let (first, second) = (answer("one", 3600), answer("two", 7200));
    let web = Played::new(Ok(&first));
    let followed = followed(&web, source()).await.expect("a token");
    let before = shown(&followed);
    web.says(Err(WebError::Status { status: 401, said: String::new() }));
    sleep(Duration::from_secs(4000)).await;
    let asked = web.asked();
    assert!((80..130).contains(&asked) && shown(&followed) == before, "{asked} times");
    web.says(Ok(&second));
    sleep(Duration::from_secs(45)).await;
    assert!(shown(&followed) != before);
}

#[test]
fn when_the_next_one_is_due() {
    let of = |issued: Option<i64>, seconds: i64, chance: f64| {
        let expires_at_ms = NOW_MS + seconds * 1000;
        let issued_at_ms = issued.map(|ago| NOW_MS - ago * 1000);
        let token = GivenToken { text: Secret::new(""), principal: String::new(), issued_at_ms, expires_at_ms };
        pause_ms(&source(), &token, NOW_MS, chance) / 1000
    };
    assert_eq!((of(Some(0), 3600, 0.0), of(None, 3600, 1.0)), (2880, 3060));
    assert_eq!(of(Some(3600), 3600, 0.0), 2160, "of its whole life");
    assert_eq!(of(Some(0), 400, 1.0), 100, "five minutes before its end at least");
    assert_eq!(of(Some(36_000), 3600, 0.0), 60, "not within a minute");
    assert_eq!(of(Some(0), 100, 0.0), 80, "too short for either");
    assert_eq!((of(Some(0), 0, 0.0), of(Some(0), -5, 0.0), of(Some(0), 1, 0.0)), (10, 10, 1));
}

/// As after a boot with a clock that was wrong.
#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_back_holds_up_nothing() {
    let (first, second) = (answer("one", 3600), answer("two", 7200));
    let web = Played::new(Ok(&first));
    let clock = Arc::new(ManualClock::new(NOW_MS, 7));
    let followed = FollowedToken::follow(source(), Arc::clone(&web) as _, Arc::clone(&clock) as _).await;
    let followed = followed.expect("a token");
    let before = shown(&followed);
    web.says(Ok(&second));
    clock.advance(-86_400_000);
    sleep(Duration::from_secs(2870)).await;
    assert_eq!(web.asked(), 1);
    sleep(Duration::from_secs(300)).await;
    assert!(web.asked() == 2 && shown(&followed) != before);
    // And one that goes on while the machine sleeps.
    clock.advance(2 * 86_400_000);
    sleep(Duration::from_secs(31)).await;
    assert!(web.asked() > 2);
}

#[test]
fn senseless_numbers_ask_neither_without_a_pause_nor_never() {
    let (issued_at_ms, expires_at_ms) = (Some(NOW_MS), NOW_MS + 3_600_000);
    let token = GivenToken { text: Secret::new(""), principal: String::new(), issued_at_ms, expires_at_ms };
    for (window, jitter) in [(1e300, 0.0), (-5.0, 0.0), (f64::NAN, 0.0), (f64::INFINITY, f64::NEG_INFINITY), (0.0, 0.0)]
    {
        for seconds in [-32_768, 0, 60] {
            let (after_ms, before_ms) = (seconds * 1000, seconds * 1000);
            let source = TokenSource { refresh: Refresh { window, jitter, after_ms, before_ms }, ..source() };
            let pause_ms = pause_ms(&source, &token, NOW_MS, 1.0);
            assert!((1_800_000..=3_600_000).contains(&pause_ms), "{pause_ms} for {window} {jitter} {seconds}");
        }
    }
}

#[test]
fn a_token_is_read_as_strictly_as_kafka_reads_it() {
    let read = |claims: serde_json::Value| GivenToken::read(&token(&claims), &source());
    let sound = read(json!({"sub": "a", "exp": 5, "scope": ["x", "y"]})).expect("sound");
    assert_eq!((sound.principal.as_str(), sound.expires_at_ms, sound.issued_at_ms), ("a", 5000, None));
    assert!(read(json!({"sub": "a", "exp": 5.5, "iat": 1, "scope": "x y", "aud": 7})).is_ok());
    for bad in [
        json!({"exp": 5}),
        json!({"sub": " ", "exp": 5}),
        json!({"sub": "a"}),
        json!({"sub": "a", "exp": -1}),
        json!({"sub": "a", "exp": "5"}),
        json!({"sub": "a", "exp": 5, "iat": "x"}),
        json!({"sub": "a", "exp": 5, "scope": ["x", "x"]}),
        json!({"sub": "a", "exp": 5, "scope": ""}),
        json!([1]),
    ] {
        assert!(read(bad.clone()).is_err(), "{bad}");
    }
    let sound = token(&json!({"sub": "a", "exp": 5}));
    assert!(GivenToken::read(&format!(" {sound}\n"), &source()).is_ok());
    for bad in ["", "a.b", "a.b.c", &format!("{sound}.x"), &format!("{sound}\u{1}")] {
        assert!(GivenToken::read(bad, &source()).is_err(), "{bad:?}");
    }
}

#[tokio::test]
async fn a_file_is_read_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("token");
    let write =
        |name: &str| std::fs::write(&path, token(&json!({"sub": name, "exp": NOW_MS / 1000}))).expect("written");
    write("one");
    let web = Played::new(Err(unreachable()));
    let source = TokenSource { at: Place::File(path.clone()), client: None, ..source() };
    let followed = followed(&web, source.clone()).await.expect("a token");
    let before = shown(&followed);
    write("two");
    followed.refresh().await;
    assert!(shown(&followed) != before && web.asked() == 0);
    std::fs::remove_file(&path).expect("removed");
    let clock = Arc::new(ManualClock::new(NOW_MS, 7));
    let error = FollowedToken::follow(source, Arc::clone(&web) as _, clock as _).await.expect_err("gone");
    assert!(error.to_string().contains("No such file"), "{error}");
}
