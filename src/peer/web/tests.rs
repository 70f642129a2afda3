//! Questions to servers that are played, byte by byte.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use super::*;
use crate::config::web_url::WebUrl;
use crate::config::{Secret, TlsSettings};
use crate::security::sasl::web::Form;
use crate::security::tls::TlsListener;
use crate::security::tls::testing::{Authority, settings, with};
use crate::security::tls::web::TowardsWeb;

const PATIENCE: Duration = Duration::from_secs(20);

/// Has a server answer one question with `says`, and hold the connection for a while; what it heard, and what was made
/// of it. `tls`: the server's end, and the client's settings.
async fn asked(
    says: Vec<u8>,
    form: Option<Form>,
    tls: Option<(Arc<TlsListener>, TlsSettings)>,
    patience: Duration,
) -> (String, Result<Vec<u8>, WebError>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    let (server, client) = match tls {
        Some((server, settings)) => (Some(server), Some(TowardsWeb::open(&settings).expect("legal"))),
        None => (None, None),
    };
    let serving = async move {
        let (socket, _) = listener.accept().await.expect("a connection");
        let mut stream = match server {
            Some(server) => match Stream::accept(socket, server.server()).await {
                Ok(stream) => stream,
                Err(_) => return String::new(),
            },
            None => Stream::Plain(socket),
        };
        let (mut heard, mut bytes) = (Vec::new(), [0; 4096]);
        let is_whole = |heard: &[u8]| {
            let text = String::from_utf8_lossy(heard);
            text.split_once("\r\n\r\n").is_some_and(|(head, body)| head.starts_with("GET") || body.contains("scope"))
        };
        while !is_whole(&heard) {
            let read = stream.read(&mut bytes).await.expect("read");
            assert!(read > 0, "it goes away");
            heard.extend_from_slice(&bytes[..read]);
        }
        stream.write_all(&says).await.ok();
        // Until the other side has enough.
        while stream.read(&mut bytes).await.is_ok_and(|read| read > 0) {}
        String::from_utf8(heard).expect("text")
    };
    let scheme = if client.is_some() { "https" } else { "http" };
    let url = WebUrl::parse(&format!("{scheme}://127.0.0.1:{port}/keys?a=b")).expect("of the web").expect("a URL");
    let question = Question { url, tls: client, form, patience: (PATIENCE, patience) };
    tokio::join!(serving, async { HttpWeb.ask(question).await })
}

async fn got(says: &str) -> Result<String, WebError> {
    let (_, answer) = asked(says.as_bytes().to_vec(), None, None, PATIENCE).await;
    answer.map(|body| String::from_utf8(body).expect("text"))
}

#[tokio::test]
async fn what_lies_there_is_got() {
    let (heard, answer) = asked(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}".to_vec(), None, None, PATIENCE).await;
    assert_eq!(answer, Ok(b"{}".to_vec()));
    assert!(heard.starts_with("GET /keys?a=b HTTP/1.1\r\nhost: 127.0.0.1:"), "{heard}");
    assert!(heard.contains("accept: application/json\r\n") && !heard.contains("authorization"), "{heard}");
    let chunks = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n";
    assert_eq!(got(chunks).await.as_deref(), Ok("{}"));
}

#[tokio::test]
async fn a_form_is_posted_with_what_proves_whose_it_is() {
    let form = Form { authorization: Secret::new("Basic aHVudGVyMg=="), fields: "grant_type=x&scope=y".into() };
    assert!(!format!("{form:?}").contains("aHVudGVyMg"));
    let says = b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}".to_vec();
    let (heard, answer) = asked(says, Some(form), None, PATIENCE).await;
    assert_eq!(answer, Ok(b"{}".to_vec()));
    assert!(heard.starts_with("POST /keys?a=b HTTP/1.1\r\n"), "{heard}");
    for said in ["authorization: Basic aHVudGVyMg==\r\n", "content-length: 20\r\n", "\r\n\r\ngrant_type=x&scope=y"] {
        assert!(heard.contains(said), "{said}: {heard}");
    }
}

#[tokio::test]
async fn what_is_no_good_answer_is_an_error_that_says_so() {
    let elsewhere = "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(got(elsewhere).await, Err(WebError::Status { status: 302, said: String::new() }));
    let body = "{\"error\":\"invalid_client\",\"error_description\":\"no\\nsuch\"}";
    let refusal = format!("HTTP/1.1 401 No\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let said = " (invalid_client - no such)".into();
    assert_eq!(got(&refusal).await, Err(WebError::Status { status: 401, said }));
    for rubbish in ["rubbish\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "HTTP/2 200\r\n\r\n"] {
        assert!(matches!(got(rubbish).await, Err(WebError::Malformed(_))), "{rubbish}");
    }
    let heads = format!("HTTP/1.1 200 OK\r\n{}", format!("a: {}\r\n", "x".repeat(1000)).repeat(200));
    assert!(matches!(got(&heads).await, Err(WebError::Malformed(_))));
}

#[tokio::test]
async fn an_answer_has_its_bounds_in_length_and_time() {
    let head = "HTTP/1.1 200 OK\r\n";
    let long = |length: usize| format!("{head}Content-Length: {length}\r\n\r\n{}", "x".repeat(length));
    assert_eq!(got(&long(ANSWER_BYTES_MAX)).await.map(|body| body.len()), Ok(ANSWER_BYTES_MAX));
    assert_eq!(got(&long(ANSWER_BYTES_MAX + 1)).await, Err(WebError::TooLong));
    let chunk = format!("8000\r\n{}\r\n", "x".repeat(0x8000));
    let endless = format!("{head}Transfer-Encoding: chunked\r\n\r\n{}", chunk.repeat(20));
    assert_eq!(got(&endless).await, Err(WebError::TooLong));
    let short = Duration::from_millis(300);
    for silent in ["", head, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{"] {
        let (_, answer) = asked(silent.as_bytes().to_vec(), None, None, short).await;
        assert_eq!(answer, Err(WebError::TimedOut(short)), "{silent}");
    }
}

#[tokio::test]
async fn over_tls_the_server_is_one_that_is_trusted() {
    let authority = Authority::new("authority");
    let server = |name: &str| {
        let settings = with(&authority.issue("web", &[name]), &[]);
        TlsListener::new(settings, false).expect("opens")
    };
    let trusting = |authority: &Authority| {
        let mut settings = settings("");
        settings.stores.truststore_certificates = Some(Secret::new(authority.pem.clone()));
        settings
    };
    let says = || b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}".to_vec();
    let with_client = |name, client| Some((server(name), client));
    let (heard, answer) = asked(says(), None, with_client("127.0.0.1", trusting(&authority)), PATIENCE).await;
    assert!(answer == Ok(b"{}".to_vec()) && heard.starts_with("GET "), "{answer:?}");
    for (name, client) in [
        ("127.0.0.1", trusting(&Authority::new("another"))),
        // This system knows nothing of it.
        ("127.0.0.1", settings("")),
        ("127.0.0.2", trusting(&authority)),
    ] {
        let (heard, answer) = asked(says(), None, with_client(name, client), PATIENCE).await;
        assert!(matches!(answer, Err(WebError::Unreachable(_))) && heard.is_empty(), "{name}: {answer:?}");
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told_so() {
    let url = WebUrl::parse("http://127.0.0.1:1/").expect("of the web").expect("a URL");
    let question = Question { url, tls: None, form: None, patience: (PATIENCE, PATIENCE) };
    assert!(matches!(HttpWeb.ask(question).await, Err(WebError::Unreachable(_))));
}
