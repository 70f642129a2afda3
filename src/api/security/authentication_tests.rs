//! A connection that authenticates, frame by frame, without a socket.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{
    ApiVersionsRequest, MetadataRequest, SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest,
    SaslHandshakeResponse,
};
use kafka_protocol::protocol::{Decodable, Request, StrBytes};
use tokio::time::Instant;

use super::authentication::{Answered, Authentication, SaslGate, SaslReply, Taken};
use crate::api::handler::CloseReason;
use crate::clock::testing::ManualClock;
use crate::config::Config;
use crate::config::sasl::{PasswordLogin, SaslMechanism};
use crate::config::testing::config;
use crate::metrics::ListenerMetrics;
use crate::security::sasl::authority::{Authority, Users};
use crate::security::sasl::credential::{ScramCredential, ScramHash};
use crate::security::sasl::login::{Login, LoginExchange};
use crate::wire::codec;
use crate::wire::header;

const DELAY: Duration = Duration::from_millis(100);

#[derive(Debug)]
struct Stored(BTreeMap<String, String>);

impl Users for Stored {
    fn setting(&self, user: &str, name: &str) -> Option<String> {
        (name == "SCRAM-SHA-256").then(|| self.0.get(user).cloned())?
    }
}

struct Room {
    gate: Arc<SaslGate>,
    clock: Arc<ManualClock>,
    connection: Authentication,
    now: Instant,
}

fn sasl_config(more: &[(&str, &str)]) -> Config {
    let plain = "org.apache.kafka.common.security.plain.PlainLoginModule required user_alice=wonder user_bob=builder;";
    let scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;";
    let oauth = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required;";
    let given = [
        ("listeners", "PLAINTEXT://:1,SASL_PLAINTEXT://:2"),
        ("sasl.enabled.mechanisms", "PLAIN,SCRAM-SHA-256,OAUTHBEARER"),
        ("listener.name.sasl_plaintext.plain.sasl.jaas.config", plain),
        ("listener.name.sasl_plaintext.scram-sha-256.sasl.jaas.config", scram),
        ("listener.name.sasl_plaintext.oauthbearer.sasl.jaas.config", oauth),
    ];
    config(&[&given, more].concat())
}

impl Room {
    fn new(more: &[(&str, &str)]) -> Self {
        let config = sasl_config(more);
        let hash = ScramHash::Sha256;
        let salted = salted("wonder", b"salt");
        let stored = ScramCredential::of_salted(hash, b"salt", &salted, 4096).text();
        let users = Arc::new(Stored([("alice".to_owned(), stored), ("bad".into(), "rubbish".into())].into()));
        let clock = Arc::new(ManualClock::new(1_000_000, 1));
        let gate = Arc::new(SaslGate {
            settings: Arc::clone(&config.sasl.listeners["SASL_PLAINTEXT"]),
            authority: Authority::new(users, clock.clone(), None, Vec::new()),
            counts: ListenerMetrics::new("SASL_PLAINTEXT".into()),
            frame_bytes_max: config.sasl.receive_bytes_max,
            failure_delay: DELAY,
        });
        let connection = Authentication::new(&gate);
        Self { gate, clock, connection, now: Instant::now() }
    }

    fn take(&mut self, frame: BytesMut) -> Taken {
        self.connection.take(frame, self.now)
    }

    fn answered(&mut self, frame: BytesMut) -> Answered {
        match self.take(frame) {
            Taken::Answered(answered) => answered,
            Taken::Request(_) => panic!("taken for a request"),
        }
    }

    fn is_request(&mut self, frame: BytesMut) -> bool {
        matches!(self.take(frame), Taken::Request(_))
    }

    fn handshake(&mut self, mechanism: &'static str, version: i16) -> (Answered, SaslHandshakeResponse) {
        let request = SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str(mechanism));
        let mut answered = self.answered(frame(&request, version));
        let response = decoded(&mut answered, version);
        (answered, response)
    }

    fn token(&mut self, token: impl Into<Bytes>) -> (Answered, SaslAuthenticateResponse) {
        let request = SaslAuthenticateRequest::default().with_auth_bytes(token.into());
        let mut answered = self.answered(frame(&request, 2));
        let response = decoded(&mut answered, 2);
        (answered, response)
    }

    fn log_in(&mut self) -> SaslAuthenticateResponse {
        assert_eq!(self.handshake("PLAIN", 1).1.error_code, 0);
        let (answered, response) = self.token("\0alice\0wonder");
        assert_eq!(answered.principal.expect("a principal").to_string(), "User:alice");
        response
    }

    /// The connection is of no use after it.
    fn closes(&mut self, frame: BytesMut) -> CloseReason {
        let answered = self.answered(frame);
        assert!(answered.reply.is_none() && answered.principal.is_none());
        assert!(!self.is_request(frame_of_metadata()), "over is over");
        answered.end.expect("an end")
    }
}

fn salted(password: &str, salt: &[u8]) -> Vec<u8> {
    let mut salted = vec![0; 32];
    let rounds = NonZeroU32::new(4096).expect("not 0");
    ring::pbkdf2::derive(ring::pbkdf2::PBKDF2_HMAC_SHA256, rounds, salt, password.as_bytes(), &mut salted);
    salted
}

fn frame<R: Request>(request: &R, version: i16) -> BytesMut {
    let mut body = BytesMut::new();
    request.encode(&mut body, version).expect("encodes");
    let flexible = codec::is_flexible(R::KEY, version);
    let mut frame = header::put_request(R::KEY, version, 7, "test", flexible, body.len()).split_off(4);
    frame.put_slice(&body);
    frame
}

fn frame_of_metadata() -> BytesMut {
    frame(&MetadataRequest::default(), 1)
}

fn decoded<R: Decodable>(answered: &mut Answered, version: i16) -> R {
    match answered.reply.take().expect("a reply") {
        SaslReply::Response { correlation_id: 7, mut body, .. } => R::decode(&mut body, version).expect("decodes"),
        _ => panic!("another reply"),
    }
}

fn raw(answered: Answered) -> Bytes {
    match answered.reply {
        Some(SaslReply::Token(token)) => token,
        _ => panic!("no token alone"),
    }
}

fn token_for(subject: &str, expires_at: i64) -> String {
    let part = |text: String| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
    let header = part(r#"{"alg":"none"}"#.into());
    let claims = part(format!(r#"{{"sub":"{subject}","exp":{expires_at}}}"#));
    format!("n,,\u{1}auth=Bearer {header}.{claims}.\u{1}\u{1}")
}

#[test]
fn a_client_asks_for_versions_names_a_mechanism_and_logs_in() {
    let mut room = Room::new(&[]);
    let mut of_the_future = frame(&ApiVersionsRequest::default(), 3);
    of_the_future[3] = 99;
    assert!(room.is_request(of_the_future), "it learns our versions");
    assert!(room.is_request(frame(&ApiVersionsRequest::default(), 3)));
    assert!(!room.connection.is_done());
    let (answered, handshake) = room.handshake("PLAIN", 1);
    assert!(answered.end.is_none() && answered.delay.is_zero());
    let offered: Vec<_> = handshake.mechanisms.iter().map(|name| name.as_str()).collect();
    assert_eq!((handshake.error_code, offered), (0, vec!["PLAIN", "SCRAM-SHA-256", "OAUTHBEARER"]));
    let (answered, response) = room.token("\0alice\0wonder");
    assert_eq!(answered.principal.expect("a principal").to_string(), "User:alice");
    assert_eq!((response.error_code, response.session_lifetime_ms, answered.end), (0, 0, None));
    assert!(room.connection.is_done() && room.is_request(frame_of_metadata()));
    assert_eq!((room.gate.counts.authentications.get(), room.gate.counts.authentications_failed.get()), (1, 0));
}

#[test]
fn scram_takes_two_tokens() {
    let login = |password: &str| {
        Arc::new(Login::Password(PasswordLogin {
            mechanism: SaslMechanism::ScramSha256,
            username: "alice".into(),
            password: crate::config::Secret::new(password),
        }))
    };
    let mut room = Room::new(&[]);
    room.handshake("SCRAM-SHA-256", 1);
    let (mut exchange, first) = LoginExchange::begin(&login("wonder"), 5, 0);
    let (answered, response) = room.token(first);
    assert!(answered.principal.is_none() && answered.end.is_none() && !room.connection.is_done());
    let last = exchange.answer(&response.auth_bytes).expect("a challenge").expect("a proof");
    let (answered, response) = room.token(last);
    assert_eq!(answered.principal.expect("a principal").to_string(), "User:alice");
    assert_eq!(exchange.answer(&response.auth_bytes), Ok(None), "the server knows the password too");

    let mut room = Room::new(&[]);
    room.handshake("SCRAM-SHA-256", 1);
    let (mut exchange, first) = LoginExchange::begin(&login("wrong"), 5, 0);
    let (_, response) = room.token(first);
    let last = exchange.answer(&response.auth_bytes).expect("a challenge").expect("a proof");
    refused(room.token(last), "SCRAM-SHA-256");
}

/// What brokers show each other: a token that is made for the moment.
#[test]
fn a_token_of_ones_own_is_believed_while_it_holds() {
    let tokens = crate::config::own_tokens::UnsecuredTokens {
        claims: [("sub".to_owned(), "broker".into())].into_iter().collect(),
        lifetime_ms: 60_000,
        extensions: [("traceId".to_owned(), "x".to_owned())].into(),
    };
    let login = Arc::new(Login::Unsecured(tokens));
    let mut room = Room::new(&[]);
    let now_ms = crate::clock::Clock::now_ms(&*room.clock);
    room.handshake("OAUTHBEARER", 1);
    let (mut exchange, first) = LoginExchange::begin(&login, 5, now_ms);
    let (answered, response) = room.token(first);
    assert_eq!(answered.principal.expect("a principal").to_string(), "User:broker");
    assert_eq!((response.error_code, response.session_lifetime_ms), (0, 60_000));
    assert_eq!(exchange.answer(&response.auth_bytes), Ok(None));
    assert!(exchange.answer(b"").is_err(), "nothing is to come");

    let mut room = Room::new(&[]);
    room.handshake("OAUTHBEARER", 1);
    let (mut exchange, first) = LoginExchange::begin(&login, 5, now_ms - 60_000);
    let (answered, response) = room.token(first);
    assert!(answered.principal.is_none() && response.error_code == 0, "{response:?}");
    let heard = exchange.answer(&response.auth_bytes).expect("what is wrong").expect("an answer");
    let (_, response) = room.token(heard);
    assert_eq!(response.error_code, 58);
    assert!(response.error_message.expect("a reason").contains("invalid_token"));
    assert!(exchange.answer(b"").is_err(), "whoever does not believe it lets nobody in");
}

/// Whatever is wrong, a client reads the same.
fn refused((answered, response): (Answered, SaslAuthenticateResponse), mechanism: &str) {
    let why = format!("due to invalid credentials with SASL mechanism {mechanism}");
    let told = format!("Authentication failed during authentication {why}");
    assert_eq!((response.error_code, response.error_message.as_deref()), (58, Some(told.as_str())));
    assert_eq!((answered.end, answered.delay), (Some(CloseReason::Unauthenticated(told)), DELAY));
}

#[test]
fn who_does_not_prove_it_is_told_kafkas_text_and_no_more() {
    let cases: [(&str, &str); 4] = [
        ("SCRAM-SHA-256", "n,,n=nobody,r=abc"),
        ("SCRAM-SHA-256", "n,,n=bad,r=abc"),
        ("SCRAM-SHA-256", "rubbish"),
        ("OAUTHBEARER", "rubbish"),
    ];
    for (mechanism, token) in cases {
        let mut room = Room::new(&[]);
        room.handshake(mechanism, 1);
        refused(room.token(token), mechanism);
        assert_eq!(room.gate.counts.authentications_failed.get(), 1);
        assert!(matches!(room.answered(frame_of_metadata()).end, Some(CloseReason::Malformed(_))));
    }
    let mut room = Room::new(&[]);
    room.handshake("PLAIN", 1);
    let (answered, response) = room.token("\0alice\0wrong");
    assert_eq!(response.error_message.as_deref(), Some("Authentication failed: Invalid username or password"));
    assert_eq!((answered.principal.is_none(), answered.delay), (true, DELAY));
}

#[test]
fn a_mechanism_that_is_not_offered_is_answered_with_those_that_are() {
    let mut room = Room::new(&[]);
    let (answered, response) = room.handshake("SCRAM-SHA-512", 1);
    assert_eq!((response.error_code, response.mechanisms.len(), answered.delay), (33, 3, DELAY));
    assert_eq!(answered.end, Some(CloseReason::Unauthenticated("Unsupported SASL mechanism SCRAM-SHA-512".into())));
}

#[test]
fn after_the_first_handshake_tokens_come_without_headers() {
    let mut room = Room::new(&[]);
    room.handshake("PLAIN", 0);
    let mut answered = room.answered(BytesMut::from("\0alice\0wonder"));
    assert_eq!(answered.principal.take().expect("a principal").to_string(), "User:alice");
    assert!(raw(answered).is_empty() && room.is_request(frame_of_metadata()));

    let mut room = Room::new(&[]);
    room.handshake("PLAIN", 0);
    let answered = room.answered(BytesMut::from("\0alice\0wrong"));
    assert!(answered.reply.is_none(), "there is nothing to say it in");
    assert_eq!((answered.end.is_some(), answered.delay), (true, DELAY));

    let mut room = Room::new(&[]);
    room.handshake("SCRAM-SHA-256", 0);
    let challenge = raw(room.answered(BytesMut::from("n,,n=alice,r=abc")));
    let end = format!(",s={},i=4096", BASE64.encode("salt"));
    assert!(challenge.starts_with(b"r=abc") && challenge.ends_with(end.as_bytes()));
}

#[test]
fn what_comes_out_of_order_ends_the_connection() {
    let room = || Room::new(&[]);
    // A request before anything.
    assert!(matches!(room().closes(frame_of_metadata()), CloseReason::Malformed(_)));
    // A token before a mechanism.
    let token = || frame(&SaslAuthenticateRequest::default().with_auth_bytes("\0alice\0wonder".into()), 1);
    assert!(matches!(room().closes(token()), CloseReason::Malformed(_)));
    // Versions a second time.
    let mut again = room();
    assert!(again.is_request(frame(&ApiVersionsRequest::default(), 0)));
    assert!(matches!(again.closes(frame(&ApiVersionsRequest::default(), 0)), CloseReason::Malformed(_)));
    // Rubbish, and what GSSAPI once began with.
    for bytes in [&b""[..], b"\x60\x82", &[0xff; 64], b"GET / HTTP/1.1\r\n"] {
        assert!(matches!(room().closes(BytesMut::from(bytes)), CloseReason::Malformed(_)), "{bytes:?}");
    }
    // Another request where a token is due.
    let mut due = room();
    due.handshake("PLAIN", 1);
    let answered = due.answered(frame_of_metadata());
    assert!(answered.reply.is_none() && answered.delay == DELAY);
    let mut twice = room();
    twice.handshake("PLAIN", 1);
    let (answered, response) = twice.handshake("PLAIN", 1);
    assert_eq!((response.error_code, answered.end.is_some()), (34, true));
    // A version that nobody has.
    let mut later = room();
    later.handshake("PLAIN", 1);
    let mut token = token();
    token[3] = 9;
    assert!(matches!(later.closes(token), CloseReason::Malformed(_)));
}

#[test]
fn no_frame_makes_it_panic() {
    let pieces: [&[u8]; 8] =
        [&[0, 17, 0, 1], &[0, 36, 0, 1], &[0, 18, 0, 3], b"PLAIN", &[0, 0, 0, 9], &[0xff], &[0, 0], &[0x7f, 0xff]];
    let mut state = 1_u64;
    for _ in 0..5000 {
        let mut room = Room::new(&[]);
        if state & 1 == 0 {
            room.handshake(
                ["PLAIN", "SCRAM-SHA-256", "OAUTHBEARER"][(state >> 8) as usize % 3],
                (state >> 16 & 1) as i16,
            );
        }
        for _ in 0..3 {
            let mut frame = BytesMut::new();
            for _ in 0..6 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                frame.extend_from_slice(pieces[(state >> 40) as usize % pieces.len()]);
            }
            if let Taken::Answered(answered) = room.take(frame) {
                assert!(answered.principal.is_none(), "nobody proved anything");
            }
        }
    }
}

/// Each byte of a message flipped, left out and doubled, and all that is left of it when it ends there.
fn changed(message: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    (0..message.len()).flat_map(move |at| {
        let (before, after) = (&message[..at], &message[at + 1..]);
        let byte = message[at];
        let instead: [&[u8]; 6] = [&[byte ^ 1], &[byte ^ 0x80], &[0], b",", &[], &[byte, byte]];
        let whole = instead.map(|instead| [before, instead, after].concat()).into_iter();
        whole.chain([before.to_vec()]).filter(move |changed| changed != message)
    })
}

#[test]
fn no_message_that_was_changed_lets_anybody_in() {
    for message in changed(b"\0alice\0wonder") {
        let mut room = Room::new(&[]);
        room.handshake("PLAIN", 1);
        assert!(room.token(message.clone()).0.principal.is_none(), "{}", message.escape_ascii());
    }
    let login = Arc::new(Login::Password(PasswordLogin {
        mechanism: SaslMechanism::ScramSha256,
        username: "alice".into(),
        password: crate::config::Secret::new("wonder"),
    }));
    let (_, first) = LoginExchange::begin(&login, 5, 0);
    for message in changed(&first) {
        let mut room = Room::new(&[]);
        room.handshake("SCRAM-SHA-256", 1);
        assert!(room.token(message.clone()).0.principal.is_none(), "{}", message.escape_ascii());
    }
    // Of each exchange the nonce is another, so its last message is as well.
    let last = |room: &mut Room| {
        room.handshake("SCRAM-SHA-256", 1);
        let (mut exchange, first) = LoginExchange::begin(&login, 5, 0);
        let (_, response) = room.token(first);
        exchange.answer(&response.auth_bytes).expect("a challenge").expect("a proof")
    };
    let changes = changed(&last(&mut Room::new(&[]))).count();
    for number in (0..changes).step_by(3) {
        let mut room = Room::new(&[]);
        let last = last(&mut room);
        if let Some(message) = changed(&last).nth(number) {
            assert!(room.token(message.clone()).0.principal.is_none(), "{}", message.escape_ascii());
        }
    }
    // Nobody signs these, so another name may come of it, but no panic. A refusal is a challenge first (RFC 7628).
    for message in changed(token_for("alice", 4_102_444_800).as_bytes()) {
        let mut room = Room::new(&[]);
        room.handshake("OAUTHBEARER", 1);
        let (answered, response) = room.token(message);
        assert!(answered.principal.is_none() || response.error_code == 0);
    }
}

#[test]
fn a_frame_that_is_too_long_ends_the_connection() {
    let mut room = Room::new(&[("sasl.server.max.receive.size", "1000")]);
    room.handshake("PLAIN", 1);
    let token = frame(&SaslAuthenticateRequest::default().with_auth_bytes(vec![b'x'; 1000].into()), 1);
    let answered = room.answered(token);
    assert!(answered.reply.is_none() && answered.end.is_some());
}

/// What is kept of a SCRAM message waits in no budget: with a name that is known, 500 strangers held 800 MiB.
#[test]
fn a_scram_message_that_is_too_long_is_refused() {
    for (nonce_bytes, is_refused) in [(4000, false), (4096, true), (400_000, true)] {
        let mut room = Room::new(&[]);
        room.handshake("SCRAM-SHA-256", 1);
        let answered = room.token(format!("n,,n=alice,r={}", "x".repeat(nonce_bytes)));
        if is_refused {
            refused(answered, "SCRAM-SHA-256");
        } else {
            assert_eq!(answered.1.error_code, 0, "a challenge");
        }
    }
}

const ENDING: (&str, &str) = ("connections.max.reauth.ms", "10000");

#[test]
fn a_session_ends_unless_its_client_authenticates_again() {
    let mut room = Room::new(&[ENDING]);
    assert_eq!(room.log_in().session_lifetime_ms, 10_000);
    room.now += Duration::from_millis(9_999);
    assert!(room.is_request(frame_of_metadata()));
    assert_eq!(room.log_in().session_lifetime_ms, 10_000);
    room.now += Duration::from_millis(9_000);
    assert!(room.is_request(frame_of_metadata()), "the session began anew");
    room.now += Duration::from_millis(1_001);
    assert_eq!(room.answered(frame_of_metadata()).end, Some(CloseReason::SessionExpired));
    let counts = &room.gate.counts;
    assert_eq!(
        (counts.authentications.get(), counts.reauthentications.get(), counts.sessions_expired.get()),
        (1, 1, 1)
    );
}

#[test]
fn a_second_handshake_within_a_second_is_no_new_authentication() {
    let handshake = || frame(&SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str("PLAIN")), 1);
    let mut endless = Room::new(&[]);
    endless.log_in();
    assert!(endless.is_request(handshake()), "nor is one where sessions do not end");
    let mut room = Room::new(&[ENDING]);
    room.log_in();
    room.log_in();
    assert!(room.is_request(handshake()), "its handler says that it comes too soon");
    room.now += Duration::from_secs(1);
    room.log_in();
}

#[test]
fn an_authentication_anew_keeps_mechanism_and_principal() {
    let mut room = Room::new(&[ENDING]);
    room.log_in();
    assert_eq!(room.handshake("PLAIN", 1).1.error_code, 0);
    let (answered, response) = room.token("\0bob\0builder");
    let why = "Cannot change principals during re-authentication from User.alice: User.bob";
    assert_eq!((response.error_code, response.error_message.as_deref()), (58, Some(why)));
    assert!(answered.principal.is_none() && answered.end.is_some());
    assert_eq!(room.gate.counts.reauthentications_failed.get(), 1);

    let mut room = Room::new(&[ENDING]);
    room.log_in();
    assert_eq!(room.handshake("SCRAM-SHA-256", 1).1.error_code, 0);
    let request = SaslAuthenticateRequest::default().with_auth_bytes("n,,n=alice,r=a".into());
    let answered = room.answered(frame(&request, 1));
    let Some(CloseReason::Unauthenticated(why)) = answered.end else { panic!("no such end") };
    assert!(why.contains("not supported for re-authentication of mechanism 'PLAIN'"), "{why}");
}

#[test]
fn a_token_of_somebody_elses_house_lasts_as_long_as_it_says() {
    let mut room = Room::new(&[("connections.max.reauth.ms", "60000")]);
    room.handshake("OAUTHBEARER", 1);
    let (answered, response) = room.token(token_for("carol", 1030));
    assert_eq!(answered.principal.expect("a principal").to_string(), "User:carol");
    assert_eq!(response.session_lifetime_ms, 30_000, "the sooner of both");

    let mut room = Room::new(&[]);
    room.clock.advance(60_000);
    room.handshake("OAUTHBEARER", 1);
    let (answered, response) = room.token(token_for("carol", 1030));
    assert_eq!((response.error_code, &response.auth_bytes[..]), (0, &br#"{"status":"invalid_token"}"#[..]));
    assert!(answered.principal.is_none() && answered.end.is_none());
    let (answered, response) = room.token("\u{1}");
    assert_eq!(response.error_message.as_deref(), Some(r#"{"status":"invalid_token"}"#));
    assert!(answered.end.is_some());
}
