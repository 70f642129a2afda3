//! How a broker comes by the tokens that it shows other brokers.

use std::ops::RangeInclusive;
use std::path::Path;

use tokio::time::{Instant, sleep};

use super::*;
use crate::security::sasl::login::{Login, Logins};
use crate::security::sasl::testing::{Played, unreachable};

/// The first token of `sasl/testdata/tokens.txt`: of alice, with the scope a, until 2100.
fn token() -> String {
    let line = include_str!("../../../security/sasl/testdata/tokens.txt").lines().next().unwrap();
    format!(r#"{{"access_token":"{}"}}"#, line.split(' ').nth(1).unwrap())
}

/// A broker of a cluster whose brokers know each other by tokens of `http://h/tokens`.
fn of(more: &[&str]) -> Result<Config, crate::config::ConfigError> {
    let module = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule";
    let jaas = format!(
        "listener.name.sasl_plaintext.oauthbearer.sasl.jaas.config={module} required clientId=me clientSecret=hunter2;"
    );
    let own = [
        "listeners=SASL_PLAINTEXT://127.0.0.1:1",
        "inter.broker.listener.name=SASL_PLAINTEXT",
        "sasl.enabled.mechanisms=OAUTHBEARER",
        "sasl.mechanism.inter.broker.protocol=OAUTHBEARER",
        "sasl.oauthbearer.jwks.endpoint.url=file:///keys",
        "zookeeper.connect=127.0.0.1:1",
        &jaas,
    ];
    load(Path::new("/nowhere"), &[&own, more].concat())
}

const TOKENS: &str = "sasl.oauthbearer.token.endpoint.url=http://h/tokens";

async fn logins(web: &Arc<Played>, clock: &crate::clock::SharedClock, more: &[&str]) -> Result<Logins, String> {
    let web: crate::security::sasl::web::SharedWeb = Arc::clone(web) as _;
    let config = of(&[&[TOKENS], more].concat()).unwrap();
    Login::start(&config.sasl, &web, clock).await.map_err(|error| error.to_string())
}

fn clock() -> crate::clock::SharedClock {
    Arc::new(SystemClock)
}

#[tokio::test]
async fn a_provider_is_asked_as_is_set() {
    const OAUTHBEARER: &str = "org.apache.kafka.common.security.oauthbearer";
    let handler = |class: &str| format!("sasl.login.callback.handler.class={class}");
    let refused = |class: &str| of(&[&handler(class)]).unwrap_err().to_string();
    assert!(refused("com.example.Login").contains("Java classes cannot be loaded"));
    assert!(refused(&format!("{OAUTHBEARER}.OAuthBearerLoginCallbackHandler")).contains("where tokens are asked for"));
    assert!(of(&[]).unwrap_err().to_string().contains("name a provider of tokens"));

    let web = Played::new(Ok(&token()));
    let times = ["sasl.login.connect.timeout.ms=3", "sasl.login.read.timeout.ms=5"];
    let own = handler(&format!("{OAUTHBEARER}.OAuthBearerLoginCallbackHandler"));
    let logins = logins(&web, &clock(), &[&own, times[0], times[1]]).await.unwrap();
    assert_eq!(logins.keys().collect::<Vec<_>>(), ["SASL_PLAINTEXT"]);
    let question = web.last();
    assert_eq!(question.url.to_string(), "http://h:80/tokens");
    assert_eq!(question.patience, (Duration::from_millis(3), Duration::from_millis(5)));
}

#[tokio::test(start_paused = true)]
async fn a_provider_is_asked_again_as_is_set() {
    for (first, all, attempts) in [(100, 1000, 5), (1000, 1000, 2), (100, 0, 1)] {
        let web = Played::new(Err(unreachable()));
        let (first, most) =
            (format!("sasl.login.retry.backoff.ms={first}"), format!("sasl.login.retry.backoff.max.ms={all}"));
        let began = Instant::now();
        assert!(logins(&web, &clock(), &[&first, &most]).await.unwrap_err().contains("cannot be reached"));
        assert_eq!((web.asked(), began.elapsed().as_millis()), (attempts, all), "{first}");
    }
}

#[tokio::test]
async fn a_token_is_read_as_is_set() {
    let web = Played::new(Ok(&token()));
    // Its issue is a number, which is no scope and none is missed; its subject is alice.
    assert!(logins(&web, &clock(), &["sasl.oauthbearer.scope.claim.name=iat"]).await.is_ok());
    let nobody = logins(&web, &clock(), &["sasl.oauthbearer.sub.claim.name=who"]).await.unwrap_err();
    assert!(nobody.contains("no claim names the principal"), "{nobody}");
    let doubled = token_with(r#"{"sub":"a","exp":4102444800,"scp":["x","x"]}"#);
    let web = Played::new(Ok(&doubled));
    assert!(logins(&web, &clock(), &[]).await.is_ok());
    let scope = logins(&web, &clock(), &["sasl.oauthbearer.scope.claim.name=scp"]).await.unwrap_err();
    assert!(scope.contains("something twice"), "{scope}");
}

fn token_with(claims: &str) -> String {
    use base64::Engine;
    let part = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
    format!(r#"{{"access_token":"{}.{}.{}"}}"#, part(r#"{"alg":"RS256"}"#), part(claims), part("signed"))
}

/// A token that holds for a thousand seconds, and after how many of them the next one is asked for.
#[tokio::test(start_paused = true)]
async fn a_token_is_renewed_as_is_set() {
    let cases: [(&[&str], RangeInclusive<i64>); 5] = [
        (&["sasl.login.refresh.window.factor=0.5", "sasl.login.refresh.window.jitter=0.0"], 500..=500),
        (&["sasl.login.refresh.window.factor=0.5", "sasl.login.refresh.window.jitter=0.25"], 501..=700),
        (&["sasl.login.refresh.window.factor=1.0", "sasl.login.refresh.window.jitter=0.0"], 700..=700),
        (&["sasl.login.refresh.buffer.seconds=100", "sasl.login.refresh.window.factor=1.0"], 900..=900),
        (&["sasl.login.refresh.min.period.seconds=650", "sasl.login.refresh.window.factor=0.5"], 650..=650),
    ];
    for (settings, wanted) in cases {
        let clock = Arc::new(crate::clock::testing::ManualClock::new(1_000_000_000, 7));
        let lasting = |seconds: i64| {
            let now = 1_000_000 + seconds;
            token_with(&format!(r#"{{"sub":"a","iat":{now},"exp":{}}}"#, now + 1000))
        };
        let web = Played::new(Ok(&lasting(0)));
        let logins = logins(&web, &(Arc::clone(&clock) as _), settings).await.unwrap();
        let mut seconds = 0;
        while web.asked() == 1 && seconds < 1100 {
            clock.advance(1000);
            seconds += 1;
            sleep(Duration::from_secs(1)).await;
        }
        // Which of the two is first in a second is not settled.
        assert!(wanted.contains(&seconds) || wanted.contains(&(seconds - 1)), "{seconds} for {settings:?}");
        drop(logins);
    }
}
