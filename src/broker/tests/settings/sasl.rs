//! Clients that have to say who they are first, over a socket.

use std::num::NonZeroU32;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use kafka_protocol::messages::alter_user_scram_credentials_request::ScramCredentialUpsertion;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    AlterUserScramCredentialsRequest, DescribeConfigsRequest, DescribeUserScramCredentialsRequest, MetadataRequest,
    SaslAuthenticateRequest, SaslHandshakeRequest,
};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::config::Secret;
use crate::config::sasl::{PasswordLogin, SaslMechanism};
use crate::security::sasl::login::{Login, LoginExchange};
use crate::transport::Stream;

/// What must never be seen.
const SECRET: &str = "hunter2-secret";

/// The end of every mechanism's key.
const JAAS: &str = "sasl.jaas.config";

/// Two listeners, one that asks nobody and one that does, with these settings more.
fn settings(more: &[&str]) -> Vec<String> {
    let jaas = |mechanism: &str, module: &str, options: &str| {
        let module = format!("org.apache.kafka.common.security.{module}");
        format!("listener.name.sasl_plaintext.{mechanism}.{JAAS}={module} required {options};")
    };
    let mut settings = vec![
        "listeners=PLAINTEXT://127.0.0.1:0,SASL_PLAINTEXT://127.0.0.1:0".to_owned(),
        "sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256".into(),
        "connection.failed.authentication.delay.ms=50".into(),
        jaas("plain", "plain.PlainLoginModule", &format!("user_alice=\"{SECRET}\"")),
        jaas("scram-sha-256", "scram.ScramLoginModule", ""),
        jaas("oauthbearer", "oauthbearer.OAuthBearerLoginModule", ""),
    ];
    settings.extend(more.iter().map(|setting| (*setting).to_owned()));
    settings
}

async fn start(more: &[&str]) -> Probe {
    let settings = settings(more);
    Probe::start(&settings.iter().map(String::as_str).collect::<Vec<_>>()).await
}

/// A connection to the listener that asks.
async fn connect(probe: &Probe) -> WireClient {
    WireClient { stream: Stream::Plain(TcpStream::connect(probe.broker.addresses()[1]).await.unwrap()), correlation: 0 }
}

fn handshake(mechanism: &'static str) -> SaslHandshakeRequest {
    SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str(mechanism))
}

fn token(text: &str) -> SaslAuthenticateRequest {
    SaslAuthenticateRequest::default().with_auth_bytes(text.to_owned().into())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_is_let_in_by_its_password_and_kept_out_without() {
    let probe = start(&[]).await;
    let mut stranger = connect(&probe).await;
    stranger.send(&MetadataRequest::default(), 1).await;
    assert!(stranger.frame().await.is_none(), "closed");

    let mut alice = connect(&probe).await;
    assert_eq!(alice.call(&handshake("PLAIN"), 1).await.error_code, 0);
    assert_eq!(alice.call(&token(&format!("\0alice\0{SECRET}")), 2).await.error_code, 0);
    assert_eq!(alice.call(&MetadataRequest::default(), 1).await.brokers.len(), 1);

    let begun = tokio::time::Instant::now();
    let mut mallory = connect(&probe).await;
    mallory.call(&handshake("PLAIN"), 1).await;
    let answer = mallory.call(&token("\0alice\0guess"), 2).await;
    assert_eq!(answer.error_code, 58);
    assert!(begun.elapsed() >= Duration::from_millis(50), "it waits before it is told");
    assert!(mallory.frame().await.is_none(), "closed");

    // On the other listener nobody is asked, and who says it all the same is told.
    let mut plain = WireClient::connect(&probe.broker).await;
    assert_eq!(plain.call(&handshake("PLAIN"), 1).await.error_code, 34);
    assert_eq!(plain.call(&MetadataRequest::default(), 1).await.brokers.len(), 1);
    probe.broker.stop().await;
}

/// CVE-2022-34917.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_stranger_sends_is_bounded() {
    let probe = start(&["connections.max.idle.ms=1000", "sasl.server.max.receive.size=1000"]).await;
    let patience = Duration::from_secs(20);
    let closed = async |client: &mut WireClient| client.frame_within(patience).await == Some(None);
    // A frame that is announced too large, and one that never ends.
    let mut large = connect(&probe).await;
    large.stream.write_all(&1001_i32.to_be_bytes()).await.unwrap();
    assert!(closed(&mut large).await);
    let mut half = connect(&probe).await;
    half.stream.write_all(&[0, 0, 0, 20, 0, 17]).await.unwrap();
    assert!(closed(&mut half).await);
    // Nothing at all, before and after the handshake.
    let mut silent = connect(&probe).await;
    assert!(closed(&mut silent).await);
    let mut shy = connect(&probe).await;
    shy.call(&handshake("PLAIN"), 1).await;
    assert!(closed(&mut shy).await);
    // Once it has proved who it is, its frames may be longer.
    let mut alice = connect(&probe).await;
    alice.call(&handshake("PLAIN"), 1).await;
    alice.call(&token(&format!("\0alice\0{SECRET}")), 2).await;
    let topics = (0..200).map(|n| MetadataRequestTopic::default().with_name(Some(topic(&format!("topic-{n}")))));
    let request = MetadataRequest::default().with_topics(Some(topics.collect())).with_allow_auto_topic_creation(false);
    assert_eq!(alice.call(&request, 4).await.topics.len(), 200);
    probe.broker.stop().await;
}

/// Frames of strangers took the room that clients' requests wait for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_hold_up_nobody_but_each_other() {
    const LARGE: usize = 450 << 10;
    let few = ["socket.request.max.bytes=1048576", "queued.max.request.bytes=1048576"];
    let probe = start(&few).await;
    let mut client = WireClient::connect(&probe.broker).await;
    create(&mut client, "t").await;
    let mut strangers = Vec::new();
    for _ in 0..4 {
        let mut stranger = connect(&probe).await;
        stranger.stream.write_all(&(LARGE as i32).to_be_bytes()).await.unwrap();
        stranger.stream.write_all(&vec![0; LARGE / 2]).await.unwrap();
        strangers.push(stranger);
    }
    let mut shy = connect(&probe).await;
    let large = produce("t", &["x".repeat(LARGE).as_str()]);
    let produced = client.call(&large, 9).await.responses[0].partition_responses[0].error_code;
    assert_eq!(produced, 0);
    for stranger in &mut strangers {
        let ended = stranger.frame_within(Duration::from_millis(20)).await;
        assert_eq!(ended, None, "it has room of its own: nobody waited for it");
    }
    // Who logs in waits for no client either.
    assert_eq!(shy.call(&handshake("PLAIN"), 1).await.error_code, 0);
    assert_eq!(shy.call(&token(&format!("\0alice\0{SECRET}")), 2).await.error_code, 0);
    let mut wide = large.clone();
    wide.timeout_ms = 1;
    assert_eq!(shy.call(&wide, 9).await.responses[0].partition_responses[0].error_code, 0);
    probe.broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scram_user_is_made_described_and_logs_in_at_once() {
    let mut probe = start(&[]).await;
    let mut salted = vec![0; 32];
    let rounds = NonZeroU32::new(4096).unwrap();
    ring::pbkdf2::derive(ring::pbkdf2::PBKDF2_HMAC_SHA256, rounds, b"salt", SECRET.as_bytes(), &mut salted);
    let upsertion = ScramCredentialUpsertion::default()
        .with_name(StrBytes::from_static_str("bob x"))
        .with_mechanism(1)
        .with_iterations(4096)
        .with_salt(b"salt".to_vec().into())
        .with_salted_password(salted.into());
    let altered = probe.call(&AlterUserScramCredentialsRequest::default().with_upsertions(vec![upsertion]), 0).await;
    assert_eq!((altered.results.len(), altered.results[0].error_code), (1, 0));
    let described = probe.call(&DescribeUserScramCredentialsRequest::default().with_users(None), 0).await;
    assert_eq!((described.results.len(), described.results[0].user.as_str()), (1, "bob x"));

    let password = Secret::new(SECRET);
    let login =
        Login::Password(PasswordLogin { mechanism: SaslMechanism::ScramSha256, username: "bob x".into(), password });
    let (mut exchange, first) = LoginExchange::begin(&Arc::new(login), 77, 0);
    let mut bob = connect(&probe).await;
    bob.call(&handshake("SCRAM-SHA-256"), 1).await;
    let send = |bytes: Vec<u8>| SaslAuthenticateRequest::default().with_auth_bytes(bytes.into());
    let challenge = bob.call(&send(first), 1).await;
    assert_eq!(challenge.error_code, 0, "{:?}", challenge.error_message);
    let last = exchange.answer(&challenge.auth_bytes).unwrap().expect("a proof");
    let done = bob.call(&send(last), 1).await;
    assert_eq!((done.error_code, exchange.answer(&done.auth_bytes)), (0, Ok(None)));
    assert_eq!(bob.call(&MetadataRequest::default(), 1).await.brokers.len(), 1);
    probe.broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_and_no_error_shows_a_secret() {
    let settings = settings(&[]);
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let config = load(Path::new("/nowhere"), &settings).unwrap();
    let shown = format!("{config:?} {:?} {:?}", config.given_lines(), config.warnings());
    assert!(!shown.contains(SECRET), "{shown}");
    let mut probe = Probe::start(&settings).await;
    let resource =
        DescribeConfigsResource::default().with_resource_type(4).with_resource_name(StrBytes::from_static_str("1"));
    let request = DescribeConfigsRequest::default().with_resources(vec![resource]).with_include_synonyms(true);
    let answer = probe.call(&request, 4).await;
    let entries = &answer.results[0].configs;
    let jaas = entries.iter().find(|entry| entry.name.contains("plain.sasl.jaas.config")).expect("it was given");
    assert!(jaas.is_sensitive && jaas.value.is_none());
    assert!(!format!("{answer:?}").contains(SECRET));
    probe.broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_lasts_as_long_as_is_set() {
    let probe = start(&["connections.max.reauth.ms=500"]).await;
    let mut alice = connect(&probe).await;
    alice.call(&handshake("PLAIN"), 1).await;
    let answer = alice.call(&token(&format!("\0alice\0{SECRET}")), 1).await;
    assert_eq!(answer.session_lifetime_ms, 500);
    tokio::time::sleep(Duration::from_millis(600)).await;
    alice.send(&MetadataRequest::default(), 1).await;
    assert!(alice.frame().await.is_none(), "closed");
    probe.broker.stop().await;
}

#[test]
fn what_brokers_show_each_other_must_be_offered() {
    let of = |mechanism: &str| {
        let between = format!("sasl.mechanism.inter.broker.protocol={mechanism}");
        let settings = settings(&["inter.broker.listener.name=SASL_PLAINTEXT", &between]);
        load(Path::new("/nowhere"), &settings.iter().map(String::as_str).collect::<Vec<_>>())
    };
    assert!(of("PLAIN").is_ok());
    let refused = of("SCRAM-SHA-512").expect_err("not offered").to_string();
    assert!(refused.contains("must be included in sasl.enabled.mechanisms"), "{refused}");
}

/// Signed by openssl: `sub` is alice, `iss` house, `aud` kafka, until 2100.
const TOKENS: &str = include_str!("../../../security/sasl/testdata/tokens.txt");
const KEYS: &str = include_str!("../../../security/sasl/testdata/jwks.json");
/// When they expire, in milliseconds since 1970.
const EXPIRY_MS: i64 = 4_102_444_800_000;

/// Whether a client is let in with the token of this algorithm, and under this name.
async fn is_believed(probe: &Probe, algorithm: &str, user: &str) -> bool {
    let mut tokens = TOKENS.lines().filter_map(|line| line.split_once(' '));
    let shown = tokens.find(|(name, _)| *name == algorithm).expect("one for each").1;
    let mut client = connect(probe).await;
    assert_eq!(client.call(&handshake("OAUTHBEARER"), 1).await.error_code, 0);
    let answer = client.call(&token(&format!("n,a={user},\u{1}auth=Bearer {shown}\u{1}\u{1}")), 1).await;
    answer.error_code == 0 && answer.auth_bytes.is_empty()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_judged_as_is_set() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("keys.json");
    std::fs::write(&file, KEYS).unwrap();
    let url = format!("sasl.oauthbearer.jwks.endpoint.url=file://{}", file.display());
    let oauth = "sasl.enabled.mechanisms=OAUTHBEARER";
    let with = async |more: &[&str]| start(&[&[oauth, url.as_str()], more].concat()).await;

    let probe =
        with(&["sasl.oauthbearer.expected.audience=other,kafka", "sasl.oauthbearer.expected.issuer=house"]).await;
    for algorithm in ["RS256", "RS512", "ES256", "ES384"] {
        assert!(is_believed(&probe, algorithm, "alice").await, "{algorithm}");
    }
    assert!(!is_believed(&probe, "RS256", "bob").await);
    // Thirty seconds are Kafka's default.
    probe.clock.0.store(EXPIRY_MS + 29_000 - SystemClock.now_ms(), Ordering::SeqCst);
    assert!(is_believed(&probe, "RS256", "alice").await);
    probe.broker.stop().await;

    let kafka = "sasl.oauthbearer.expected.audience=kafka";
    // A token that says whom it is for is for nobody where nobody is expected, as with Kafka.
    for others in
        [&["sasl.oauthbearer.expected.audience=other"][..], &[], &[kafka, "sasl.oauthbearer.expected.issuer=other"]]
    {
        let probe = with(others).await;
        assert!(!is_believed(&probe, "RS256", "alice").await, "{others:?}");
        probe.broker.stop().await;
    }
    let probe = with(&[kafka, "sasl.oauthbearer.sub.claim.name=iss", "sasl.oauthbearer.clock.skew.seconds=5"]).await;
    assert!(is_believed(&probe, "RS256", "house").await && !is_believed(&probe, "RS256", "alice").await);
    probe.clock.0.store(EXPIRY_MS + 29_000 - SystemClock.now_ms(), Ordering::SeqCst);
    assert!(!is_believed(&probe, "RS256", "house").await);
    probe.broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_keys_of_tokens_are_read_again_as_often_as_is_set() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("keys.json");
    // Without those of RSA.
    std::fs::write(&file, KEYS.replace("\"sig\"", "\"enc\"")).unwrap();
    let url = format!("sasl.oauthbearer.jwks.endpoint.url=file://{}", file.display());
    let refresh = "sasl.oauthbearer.jwks.endpoint.refresh.ms=1000";
    let audience = "sasl.oauthbearer.expected.audience=kafka";
    let probe = start(&["sasl.enabled.mechanisms=OAUTHBEARER", &url, refresh, audience]).await;
    assert!(is_believed(&probe, "ES256", "alice").await && !is_believed(&probe, "RS256", "alice").await);
    std::fs::write(&file, KEYS).unwrap();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while !is_believed(&probe, "RS256", "alice").await {
        assert!(tokio::time::Instant::now() < deadline, "they are not read again");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // What cannot be read changes nothing.
    std::fs::write(&file, "rubbish").unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(is_believed(&probe, "RS256", "alice").await);
    probe.broker.stop().await;
}

/// A server of keys: its URL, when it was asked, and whether it answers as it should.
struct KeyServer {
    url: String,
    asked: Arc<Mutex<Vec<tokio::time::Instant>>>,
    is_well: Arc<AtomicBool>,
}

impl KeyServer {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        let (asked, is_well) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(true)));
        let (heard, well) = (Arc::clone(&asked), Arc::clone(&is_well));
        crate::task::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") && socket.read_buf(&mut head).await.is_ok_and(|read| read > 0) {}
                heard.lock().push(tokio::time::Instant::now());
                let status = if well.load(Ordering::SeqCst) { "200 OK" } else { "503 Busy" };
                let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{KEYS}", KEYS.len());
                socket.write_all(answer.as_bytes()).await.ok();
            }
        });
        Self { url, asked, is_well }
    }

    /// How many questions came in one go, once the server was not well any more.
    async fn at_once(&self) -> usize {
        self.is_well.store(false, Ordering::SeqCst);
        let before = self.asked.lock().len();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        loop {
            let asked = self.asked.lock()[before..].to_vec();
            // More than a second lies between two goes.
            let gap = |pair: &[tokio::time::Instant]| pair[1] - pair[0] > Duration::from_millis(900);
            if let Some(count) = asked.windows(2).position(gap) {
                return count + 1;
            }
            assert!(tokio::time::Instant::now() < deadline, "keys are not asked for again: {}", asked.len());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_at_a_url_are_asked_for_as_often_as_is_set() {
    for (first, all, wanted) in [(20, 400, 4..=7), (20, 0, 1..=1), (500, 500, 2..=2)] {
        let server = KeyServer::start().await;
        let probe = start(&[
            "sasl.enabled.mechanisms=OAUTHBEARER",
            &format!("sasl.oauthbearer.jwks.endpoint.url={}", server.url),
            "sasl.oauthbearer.expected.audience=kafka",
            "sasl.oauthbearer.jwks.endpoint.refresh.ms=1000",
            &format!("sasl.oauthbearer.jwks.endpoint.retry.backoff.ms={first}"),
            &format!("sasl.oauthbearer.jwks.endpoint.retry.backoff.max.ms={all}"),
        ])
        .await;
        assert!(!server.asked.lock().is_empty(), "they are there before anybody is let in");
        assert!(is_believed(&probe, "RS256", "alice").await && is_believed(&probe, "ES384", "alice").await);
        let count = server.at_once().await;
        assert!(wanted.contains(&count), "{count} for {first} and {all}");
        assert!(is_believed(&probe, "RS256", "alice").await, "what is not had changes nothing");
        probe.broker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_keys_at_its_url_a_broker_does_not_start() {
    let url = "sasl.oauthbearer.jwks.endpoint.url=http://127.0.0.1:1/keys";
    let settings = settings(&["sasl.enabled.mechanisms=OAUTHBEARER", url]);
    let dir = tempfile::tempdir().unwrap();
    let config = load(dir.path(), &settings.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    let refused = Broker::start(config).await.expect_err("no keys").to_string();
    assert!(refused.contains("the keys of http://127.0.0.1:1/keys cannot be had: it cannot be reached"), "{refused}");
}

#[test]
fn who_judges_tokens_is_one_of_kafkas_own() {
    let of = |class: &str| {
        let handler = format!("sasl.server.callback.handler.class={class}");
        let settings = settings(&["sasl.enabled.mechanisms=OAUTHBEARER", &handler]);
        load(Path::new("/nowhere"), &settings.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let refused = |class| of(class).expect_err("refused").to_string();
    const OAUTHBEARER: &str = "org.apache.kafka.common.security.oauthbearer";
    assert!(refused("com.example.Handler").contains("Java classes cannot be loaded"));
    assert!(refused(&format!("{OAUTHBEARER}.OAuthBearerValidatorCallbackHandler")).contains("no keys are named"));
    assert!(of(&format!("{OAUTHBEARER}.internals.unsecured.OAuthBearerUnsecuredValidatorCallbackHandler")).is_ok());
}
