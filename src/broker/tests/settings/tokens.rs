//! Delegation tokens over a socket: made by whoever has a password, shown by whoever was given one.

use std::num::NonZeroU32;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use kafka_protocol::messages::{
    CreateDelegationTokenRequest, CreateDelegationTokenResponse, DescribeDelegationTokenRequest,
    ExpireDelegationTokenRequest, MetadataRequest, RenewDelegationTokenRequest, SaslAuthenticateRequest,
    SaslHandshakeRequest,
};
use ring::{digest, hmac, pbkdf2};
use tokio::net::TcpStream;

use super::*;
use crate::transport::Stream;

const SECRET: &str = "hunter2-master";

async fn start(dir: &Path, more: &[&str]) -> Broker {
    const MODULES: &str = "sasl.jaas.config=org.apache.kafka.common.security";
    let plain =
        format!("listener.name.sasl_plaintext.plain.{MODULES}.plain.PlainLoginModule required user_alice=\"a\";");
    let scram = format!("listener.name.sasl_plaintext.scram-sha-256.{MODULES}.scram.ScramLoginModule required;");
    let usual = [
        "listeners=PLAINTEXT://127.0.0.1:0,SASL_PLAINTEXT://127.0.0.1:0",
        "sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256",
        &plain,
        &scram,
    ];
    Broker::start(load(dir, &[&usual, more].concat()).unwrap()).await.unwrap()
}

async fn connect(broker: &Broker) -> WireClient {
    WireClient { stream: Stream::Plain(TcpStream::connect(broker.addresses()[1]).await.unwrap()), correlation: 0 }
}

async fn alice(broker: &Broker) -> WireClient {
    let mut alice = connect(broker).await;
    say(&mut alice, "PLAIN").await;
    assert_eq!(token(&mut alice, "\0alice\0a").await, (0, String::new(), 0));
    alice
}

async fn say(client: &mut WireClient, mechanism: &'static str) {
    let handshake = SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str(mechanism));
    assert_eq!(client.call(&handshake, 1).await.error_code, 0);
}

/// Code, what the broker says, and how long the session lasts.
async fn token(client: &mut WireClient, text: &str) -> (i16, String, i64) {
    let request = SaslAuthenticateRequest::default().with_auth_bytes(text.to_owned().into());
    let answer = client.call(&request, 2).await;
    (answer.error_code, String::from_utf8(answer.auth_bytes.to_vec()).unwrap(), answer.session_lifetime_ms)
}

/// Logs in with a token; the last answer.
async fn log_in(client: &mut WireClient, made: &CreateDelegationTokenResponse) -> (i16, i64) {
    let key = |name: &[u8], key: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), name).as_ref().to_vec();
    say(client, "SCRAM-SHA-256").await;
    let bare = format!("n={},r=abc,tokenauth=true", made.token_id.as_str());
    let (code, challenge, _) = token(client, &format!("n,,{bare}")).await;
    if code != 0 {
        return (code, 0);
    }
    let part = |name: &str| challenge.split(',').find_map(|part| part.strip_prefix(name)).unwrap().to_owned();
    let salt = BASE64.decode(part("s=")).unwrap();
    let rounds = NonZeroU32::new(part("i=").parse().unwrap()).unwrap();
    let mut salted = [0; 32];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, &salt, BASE64.encode(&made.hmac).as_bytes(), &mut salted);
    let last = format!("c=biws,r={}", part("r="));
    let client_key = key(b"Client Key", &salted);
    let stored = digest::digest(&digest::SHA256, &client_key);
    let signature = key(format!("{bare},{challenge},{last}").as_bytes(), stored.as_ref());
    let proof: Vec<u8> = client_key.iter().zip(signature).map(|(a, b)| a ^ b).collect();
    let (code, _, lifetime) = token(client, &format!("{last},p={}", BASE64.encode(proof))).await;
    (code, lifetime)
}

async fn described(client: &mut WireClient) -> usize {
    let answer = client.call(&DescribeDelegationTokenRequest::default().with_owners(None), 3).await;
    assert_eq!(answer.error_code, 0);
    answer.tokens.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_lives_as_long_as_is_set_and_speaks_for_its_owner() {
    let dir = tempfile::tempdir().unwrap();
    let secret = format!("delegation.token.secret.key={SECRET}");
    let settings = ["delegation.token.expiry.time.ms=600000", "delegation.token.max.lifetime.ms=900000"];
    let broker = start(dir.path(), &[&settings[..], &[&secret]].concat()).await;
    let mut client = alice(&broker).await;
    let mut made = CreateDelegationTokenResponse::default();
    for version in 1..=3 {
        made = client.call(&CreateDelegationTokenRequest::default().with_max_lifetime_ms(-1), version).await;
        assert_eq!((made.error_code, made.principal_name.as_str(), made.hmac.len()), (0, "alice", 64));
        let lives = [made.expiry_timestamp_ms, made.max_timestamp_ms].map(|at| at - made.issue_timestamp_ms);
        assert_eq!(lives, [600_000, 900_000]);
    }
    assert_eq!(described(&mut client).await, 3);
    let mut shown = connect(&broker).await;
    let (code, lifetime) = log_in(&mut shown, &made).await;
    assert!(code == 0 && (1..=600_000).contains(&lifetime), "{code} {lifetime}");
    assert_eq!(shown.call(&MetadataRequest::default(), 1).await.brokers.len(), 1);
    // Whoever has no more than a token makes no other of it.
    let not_allowed = shown.call(&CreateDelegationTokenRequest::default(), 3).await.error_code;
    let renew = RenewDelegationTokenRequest::default().with_hmac(made.hmac.clone()).with_renew_period_ms(-1);
    assert_eq!((not_allowed, shown.call(&renew, 2).await.error_code), (64, 64));
    let renewed = client.call(&renew.clone().with_renew_period_ms(i64::MAX), 2).await;
    assert_eq!((renewed.error_code, renewed.expiry_timestamp_ms), (0, made.max_timestamp_ms));
    let mut other = made.clone();
    other.hmac = vec![7; 64].into();
    assert_eq!(log_in(&mut connect(&broker).await, &other).await.0, 58, "with another key");
    let expire = ExpireDelegationTokenRequest::default().with_hmac(made.hmac.clone()).with_expiry_time_period_ms(-1);
    assert_eq!(client.call(&expire, 2).await.error_code, 0);
    assert_eq!(client.call(&expire, 2).await.error_code, 62);
    assert_eq!(log_in(&mut connect(&broker).await, &made).await.0, 58, "it is gone");
    broker.stop().await;

    // The former name of the secret; and without one there are none.
    let former = format!("delegation.token.master.key={SECRET}");
    let broker = start(dir.path(), &[&former]).await;
    let mut client = alice(&broker).await;
    assert_eq!(described(&mut client).await, 2);
    let answer = client.call(&DescribeDelegationTokenRequest::default().with_owners(None), 3).await;
    let kept = &answer.tokens[0];
    let same = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA512, SECRET.as_bytes()), kept.token_id.as_bytes());
    assert_eq!(&kept.hmac[..], same.as_ref());
    broker.stop().await;
    let broker = start(dir.path(), &[]).await;
    let mut client = alice(&broker).await;
    assert_eq!(client.call(&CreateDelegationTokenRequest::default(), 3).await.error_code, 61);
    assert_eq!(log_in(&mut connect(&broker).await, &made).await.0, 58);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expired_tokens_are_looked_for_as_often_as_is_set() {
    let dir = tempfile::tempdir().unwrap();
    let secret = format!("delegation.token.secret.key={SECRET}");
    let broker = start(dir.path(), &[&secret, "delegation.token.expiry.check.interval.ms=200"]).await;
    let mut client = alice(&broker).await;
    for lifetime in [1, 600_000] {
        let request = CreateDelegationTokenRequest::default().with_max_lifetime_ms(lifetime);
        assert_eq!(client.call(&request, 3).await.error_code, 0);
    }
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while described(&mut client).await != 1 {
        assert!(tokio::time::Instant::now() < deadline, "the expired one stays");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    broker.stop().await;
}
