//! Connections: one request after the other, and what ends a socket.

use super::super::connection::{Ask, CallError, Connection};
use super::*;
use crate::clock::SystemClock;
use crate::wire::codec;

/// UpdateMetadata's key: a request with the simplest of answers.
const KEY: i16 = 6;
const LONG: Duration = Duration::from_secs(20);

fn connection() -> Connection {
    Connection::new("test".into(), 1 << 20, Arc::new(SystemClock))
}

async fn call(connection: &Connection, other: &Other, patience: Duration) -> Result<i16, CallError> {
    let ask = Ask { key: KEY, version: 8, body: Bytes::from_static(b"asked") };
    let decode = |body| Ok(wire::UpdateMetadataAnswer::decode(body)?.error_code);
    connection.call(&other.address, ask, patience, decode).await
}

fn connections(other: &Other) -> Vec<usize> {
    other.came().iter().map(|came| came.connection).collect()
}

#[tokio::test]
async fn requests_follow_each_other_on_one_socket() {
    let other = Other::start([1, 2, 3].map(|code| Act::Answer(done(code)))).await;
    let connection = connection();
    let calls = (0..3).map(|_| call(&connection, &other, LONG));
    let answers: Vec<i16> =
        futures_util::future::join_all(calls).await.into_iter().map(|answer| answer.expect("answered")).collect();
    assert_eq!(answers, [1, 2, 3]);
    let came = other.came();
    assert_eq!(connections(&other), [1, 1, 1]);
    assert_eq!((came[0].header.key, came[0].header.version, &came[0].body[..]), (KEY, 8, &b"asked"[..]));
    assert_eq!(came[0].header.client_id.as_deref(), Some("test"));
}

#[tokio::test]
async fn an_answer_that_comes_too_late_is_not_taken_for_the_next_one() {
    let late = Act::AnswerAfter(Duration::from_millis(300), done(1));
    let other = Other::start([late, Act::AnswerAfter(Duration::from_millis(400), done(2))]).await;
    let connection = connection();
    let first = call(&connection, &other, Duration::from_millis(100)).await;
    assert!(matches!(first, Err(CallError::TimedOut { .. })), "{first:?}");
    assert_eq!(call(&connection, &other, LONG).await.expect("answered"), 2);
    assert_eq!(connections(&other), [1, 2], "the first socket is gone");
}

#[tokio::test]
async fn a_call_that_is_dropped_takes_its_socket_with_it() {
    let other = Other::start([Act::Silence, Act::Answer(done(2))]).await;
    let connection = connection();
    let dropped = tokio::time::timeout(Duration::from_millis(100), call(&connection, &other, LONG)).await;
    assert!(dropped.is_err());
    assert_eq!(call(&connection, &other, LONG).await.expect("answered"), 2);
    assert_eq!(connections(&other), [1, 2]);
}

#[tokio::test]
async fn what_cannot_be_read_ends_the_socket() {
    let acts = [
        Act::AnswerAnother(done(0)),
        Act::Answer(Bytes::from_static(&[0])),
        Act::Announce((1 << 20) + 1),
        Act::Announce(-1),
        Act::Close,
        Act::Answer(done(7)),
    ];
    let other = Other::start(acts).await;
    let connection = connection();
    for expected in ["correlation id", "fewer bytes", "announces 1048577 bytes", "announces -1 bytes", "lost"] {
        let error = call(&connection, &other, LONG).await.expect_err("refused").to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
    assert_eq!(call(&connection, &other, LONG).await.expect("answered"), 7);
    assert_eq!(connections(&other), [1, 2, 3, 4, 5, 6]);
}

/// A broker closes connections that were idle for `connections.max.idle.ms`.
#[tokio::test]
async fn a_socket_that_was_closed_while_it_was_idle_costs_no_call() {
    let other = Other::start([Act::AnswerAndClose(done(1)), Act::Answer(done(2))]).await;
    let connection = connection();
    assert_eq!(call(&connection, &other, LONG).await.expect("answered"), 1);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(call(&connection, &other, LONG).await.expect("answered"), 2);
    assert_eq!(connections(&other), [1, 2]);
}

#[tokio::test]
async fn another_address_is_another_socket() {
    let one = Other::start([Act::Answer(done(1))]).await;
    let two = Other::start([Act::Answer(done(2))]).await;
    let connection = connection();
    assert_eq!(call(&connection, &one, LONG).await.expect("answered"), 1);
    assert_eq!(call(&connection, &two, LONG).await.expect("answered"), 2);
}

#[tokio::test]
async fn nobody_there_is_an_error_within_the_deadline() {
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port").local_addr().expect("bound");
    let to = address::Address { host: "127.0.0.1".into(), port: gone.port(), tls: None, login: None };
    let ask = || Ask { key: KEY, version: 8, body: Bytes::new() };
    let connection = connection();
    for _ in 0..3 {
        let called = connection.call(&to, ask(), LONG, |_| Ok(())).await;
        assert!(matches!(called, Err(CallError::Connect { .. })), "{called:?}");
    }
}

/// Answers to SaslHandshake and SaslAuthenticate in version 1.
fn handshaken(error_code: i16) -> Bytes {
    let answer = kafka_protocol::messages::SaslHandshakeResponse::default().with_error_code(error_code);
    codec::encode_response(&answer, 1).expect("encodes")
}

fn authenticated(error_code: i16, session_lifetime_ms: i64) -> Bytes {
    let answer = kafka_protocol::messages::SaslAuthenticateResponse::default().with_error_code(error_code);
    let answer = answer.with_error_message(Some("no entry".to_owned().into()));
    codec::encode_response(&answer.with_session_lifetime_ms(session_lifetime_ms), 1).expect("encodes")
}

/// The same broker, which asks who comes.
async fn asking(script: impl IntoIterator<Item = Act>) -> Other {
    let mut other = Other::start(script).await;
    let password = crate::config::Secret::new("hunter2");
    let mechanism = crate::config::sasl::SaslMechanism::Plain;
    let login = crate::config::sasl::PasswordLogin { mechanism, username: "broker".into(), password };
    other.address.login = Some(Arc::new(crate::security::sasl::login::Login::Password(login)));
    other
}

#[tokio::test]
async fn a_socket_is_authenticated_before_anything_else_and_once() {
    let script = [handshaken(0), authenticated(0, 0), done(1), done(2)].map(Act::Answer);
    let other = asking(script).await;
    let connection = connection();
    assert_eq!(call(&connection, &other, LONG).await.expect("answered"), 1);
    assert_eq!(call(&connection, &other, LONG).await.expect("answered"), 2);
    let came = other.came();
    let asked: Vec<_> = came.iter().map(|came| (came.connection, came.header.key, came.header.version)).collect();
    assert_eq!(asked, [(1, 17, 1), (1, 36, 1), (1, KEY, 8), (1, KEY, 8)]);
    assert!(came[1].body.ends_with(b"\0broker\0hunter2"));
}

#[tokio::test]
async fn who_is_not_let_in_hears_why_and_comes_again() {
    let refused = [handshaken(33), handshaken(0), authenticated(58, 0)].map(Act::Answer);
    let other = asking(refused).await;
    let connection = connection();
    for expected in ["it does not offer PLAIN (error 33)", "no entry"] {
        let error = call(&connection, &other, LONG).await.expect_err("not let in");
        assert!(matches!(error, CallError::Unauthenticated { .. }), "{error:?}");
        assert!(error.to_string().contains(expected) && !format!("{error:?}").contains("hunter2"), "{error:?}");
    }
    assert_eq!(connections(&other), [1, 2, 2]);
}

#[tokio::test]
async fn a_session_that_is_nearly_over_is_followed_by_another_socket() {
    let script = [handshaken(0), authenticated(0, 1), done(1), handshaken(0), authenticated(0, 0), done(2)];
    let other = asking(script.map(Act::Answer)).await;
    let connection = connection();
    assert_eq!(call(&connection, &other, LONG).await.expect("answered"), 1);
    tokio::time::sleep(Duration::from_millis(2)).await;
    assert_eq!(call(&connection, &other, LONG).await.expect("answered"), 2);
    assert_eq!(connections(&other), [1, 1, 1, 2, 2, 2]);
}
