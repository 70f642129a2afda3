//! A few pages over HTTP/1.1, for whoever watches the broker: GET, one request per connection, no body taken.
//!
//! Written by hand, because no HTTP library is among the crates this is built from, and all that is needed of one is a
//! request line. Whatever comes is bounded: connections at a time, bytes of a request's head, and the time for each
//! step. One task serves all of it, so that its end is the end of every connection. Source: RFC 9112, stricter where it
//! leaves a choice.

use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing::{debug, error};

use super::listener::Listener;

/// Bytes of a request's head, the blank line included.
pub(crate) const HEAD_BYTES_MAX: usize = 8 << 10;
/// Connections that are served at a time. More wait to be accepted.
const CONNECTIONS_MAX: usize = 16;

/// How long each step may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// Until a head has come.
    pub(crate) head: Duration,
    /// Until a page is made.
    pub(crate) page: Duration,
    /// Until an answer is taken.
    pub(crate) send: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { head: Duration::from_secs(5), page: Duration::from_secs(10), send: Duration::from_secs(10) }
    }
}

/// What a client still sends is read for so long: closing sooner would take the answer from it.
const LINGER: Duration = Duration::from_millis(500);
const LINGER_BYTES_MAX: u64 = 64 << 10;
/// After a failed accept, mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How a request ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Ok,
    BadRequest,
    NotFound,
    MethodNotAllowed,
    RequestTimeout,
    HeadTooLarge,
    Failed,
    Unavailable,
}

impl Status {
    fn line(self) -> &'static str {
        match self {
            Self::Ok => "200 OK",
            Self::BadRequest => "400 Bad Request",
            Self::NotFound => "404 Not Found",
            Self::MethodNotAllowed => "405 Method Not Allowed",
            Self::RequestTimeout => "408 Request Timeout",
            Self::HeadTooLarge => "431 Request Header Fields Too Large",
            Self::Failed => "500 Internal Server Error",
            Self::Unavailable => "503 Service Unavailable",
        }
    }
}

/// What a path answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) status: Status,
    pub(crate) content_type: &'static str,
    pub(crate) body: String,
}

impl Page {
    /// One line of text.
    pub(crate) fn line(status: Status, text: &str) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body: format!("{text}\n") }
    }

    fn bare(status: Status) -> Self {
        Self::line(status, status.line())
    }
}

/// The page at a path, without its query; `None`: there is none.
pub(crate) type Pages = Arc<dyn Fn(&str) -> Option<BoxFuture<'static, Page>> + Send + Sync>;

/// Serves until it is dropped.
pub(crate) async fn serve(listener: Listener, pages: Pages, patience: Patience) {
    let pages = &pages;
    let mut open: FuturesUnordered<BoxFuture<'_, ()>> = FuturesUnordered::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if open.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, peer)) => open.push(Box::pin(async move {
                    if let Err(error) = connection(stream, pages, patience).await {
                        debug!(%peer, %error, "an HTTP connection was lost");
                    }
                })),
                Err(error) => {
                    debug!(%error, "accepting an HTTP connection failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(()) = open.next(), if !open.is_empty() => {}
        }
    }
}

async fn connection(mut stream: TcpStream, pages: &Pages, patience: Patience) -> io::Result<()> {
    let (page, without_body) = match timeout(patience.head, read_head(&mut stream)).await {
        Err(_) => (Page::bare(Status::RequestTimeout), false),
        Ok(Err(Unread::Lost(error))) => return Err(error),
        Ok(Err(Unread::Gone)) => return Ok(()),
        Ok(Err(Unread::Refused(status))) => (Page::bare(status), false),
        Ok(Ok(head)) => match parse(&head) {
            Err(Malformed) => (Page::bare(Status::BadRequest), false),
            Ok(request) => (answer(&request, pages, patience.page).await, request.method == "HEAD"),
        },
    };
    let sent = timeout(patience.send, async {
        stream.write_all(&encode(&page, without_body)).await?;
        stream.shutdown().await
    });
    sent.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    // What comes then is of no interest, nor is how the client hangs up.
    let rest = async { tokio::io::copy(&mut stream.take(LINGER_BYTES_MAX), &mut tokio::io::sink()).await };
    if let Ok(Err(error)) = timeout(LINGER, rest).await {
        debug!(%error, "an HTTP client hung up");
    }
    Ok(())
}

async fn answer(request: &Request<'_>, pages: &Pages, patience: Duration) -> Page {
    let Some(page) = pages(request.path) else { return Page::bare(Status::NotFound) };
    if request.method != "GET" {
        return Page::bare(Status::MethodNotAllowed);
    }
    // A page that panics costs its own connection alone.
    match timeout(patience, AssertUnwindSafe(page).catch_unwind()).await {
        Ok(Ok(page)) => page,
        Ok(Err(_)) => {
            error!(path = request.path, "making a page panicked; this is a bug");
            Page::bare(Status::Failed)
        }
        Err(_) => Page::line(Status::Unavailable, "not ready in time"),
    }
}

fn encode(page: &Page, without_body: bool) -> Vec<u8> {
    let allow = if page.status == Status::MethodNotAllowed { "Allow: GET\r\n" } else { "" };
    let mut answer = format!(
        "HTTP/1.1 {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n{allow}\
         Connection: close\r\n\r\n",
        page.status.line(),
        page.content_type,
        page.body.len(),
    );
    if !without_body {
        answer.push_str(&page.body);
    }
    answer.into_bytes()
}

/// Why there is no head.
#[derive(Debug)]
enum Unread {
    Refused(Status),
    /// The client hung up before it was whole.
    Gone,
    Lost(io::Error),
}

/// Reads up to and without the blank line. What cannot be a head is refused as soon as that shows.
async fn read_head(stream: &mut TcpStream) -> Result<Vec<u8>, Unread> {
    let mut head = Vec::with_capacity(1024);
    loop {
        let before = head.len();
        if stream.read_buf(&mut head).await.map_err(Unread::Lost)? == 0 {
            return Err(Unread::Gone);
        }
        if let Some(end) = head_end(&head, before) {
            if end + BLANK.len() > HEAD_BYTES_MAX {
                return Err(Unread::Refused(Status::HeadTooLarge));
            }
            head.truncate(end);
            return Ok(head);
        }
        if !head[before..].iter().all(|&byte| is_legal(byte)) {
            return Err(Unread::Refused(Status::BadRequest));
        }
        if head.len() >= HEAD_BYTES_MAX {
            return Err(Unread::Refused(Status::HeadTooLarge));
        }
    }
}

const BLANK: &[u8] = b"\r\n\r\n";

/// Where the blank line begins, if it ends behind `before`.
fn head_end(head: &[u8], before: usize) -> Option<usize> {
    let from = before.saturating_sub(BLANK.len() - 1);
    head[from..].windows(BLANK.len()).position(|window| window == BLANK).map(|at| from + at)
}

/// ASCII without control characters, but for those that a head is made of.
fn is_legal(byte: u8) -> bool {
    matches!(byte, b' '..=b'~' | b'\t' | b'\r' | b'\n')
}

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
struct Request<'a> {
    method: &'a str,
    /// Without query.
    path: &'a str,
}

/// It is no request that can be answered.
#[derive(Debug, PartialEq, Eq)]
struct Malformed;

/// Reads a head without its blank line.
fn parse(head: &[u8]) -> Result<Request<'_>, Malformed> {
    if !head.iter().all(|&byte| is_legal(byte)) {
        return Err(Malformed);
    }
    let text = std::str::from_utf8(head).map_err(|_| Malformed)?;
    let mut lines = text.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(target), Some(version), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(Malformed);
    };
    let is_1_1 = match version {
        "HTTP/1.1" => true,
        "HTTP/1.0" => false,
        _ => return Err(Malformed),
    };
    let mut hosts = 0;
    for line in lines {
        let (name, value) = line.split_once(':').ok_or(Malformed)?;
        if !is_token(name) || value.contains(['\r', '\n']) {
            return Err(Malformed);
        }
        hosts += usize::from(name.eq_ignore_ascii_case("host"));
        // A body would stand in the way of the next request; there is no next one, and no page takes one.
        let has_body = name.eq_ignore_ascii_case("transfer-encoding")
            || (name.eq_ignore_ascii_case("content-length") && value.trim() != "0");
        if has_body && method == "GET" {
            return Err(Malformed);
        }
    }
    if hosts > 1 || (is_1_1 && hosts == 0) || !is_token(method) {
        return Err(Malformed);
    }
    Ok(Request { method, path: path(target)? })
}

/// RFC 9110: names of methods and fields.
fn is_token(text: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(legal)
}

/// The path of `/path?query`, or of the absolute form, which proxies send.
fn path(target: &str) -> Result<&str, Malformed> {
    let rest = match target.split_once("://") {
        Some(("http", rest)) => rest.find('/').map_or("/", |at| &rest[at..]),
        _ => target,
    };
    let path = rest.split('?').next().unwrap_or_default();
    let legal = path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    if legal { Ok(path) } else { Err(Malformed) }
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinHandle;

    use super::*;
    use crate::net::listener::{SocketSizes, bind};

    fn get(head: &str) -> Result<(&str, &str), Malformed> {
        parse(head.as_bytes()).map(|request| (request.method, request.path))
    }

    #[test]
    fn a_request_line_and_fields_are_read() {
        assert_eq!(get("GET /metrics HTTP/1.1\r\nHost: a"), Ok(("GET", "/metrics")));
        assert_eq!(get("GET /metrics?name=x HTTP/1.1\r\nhost:a\r\nAccept: */*\r\nX:"), Ok(("GET", "/metrics")));
        assert_eq!(get("GET http://a:1/livez?x HTTP/1.1\r\nHost: a"), Ok(("GET", "/livez")));
        assert_eq!(get("GET http://a HTTP/1.0"), Ok(("GET", "/")));
        assert_eq!(get("POST / HTTP/1.0\r\nContent-Length: 5"), Ok(("POST", "/")));
        assert_eq!(get("GET / HTTP/1.0\r\nContent-Length: 0"), Ok(("GET", "/")));
    }

    #[test]
    fn what_is_no_request_is_malformed() {
        for head in [
            "",
            "GET",
            "GET /",
            "GET / HTTP/1.1",
            "GET / HTTP/2",
            "GET / HTTP/1.1x\r\nHost: a",
            "GET  / HTTP/1.1\r\nHost: a",
            " GET / HTTP/1.1\r\nHost: a",
            "GET / HTTP/1.1 \r\nHost: a",
            "GET\t/ HTTP/1.1\r\nHost: a",
            "G@T / HTTP/1.1\r\nHost: a",
            "GET metrics HTTP/1.1\r\nHost: a",
            "GET * HTTP/1.1\r\nHost: a",
            "GET /a#b HTTP/1.1\r\nHost: a",
            "GET ftp://a/b HTTP/1.1\r\nHost: a",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: b",
            "GET / HTTP/1.1\r\nHost : a",
            "GET / HTTP/1.1\r\nHost: a\r\n folded",
            "GET / HTTP/1.1\r\nHost: a\r\nno colon",
            "GET / HTTP/1.1\r\nHost: a\r\n: x",
            "GET / HTTP/1.1\nHost: a",
            "GET / HTTP/1.1\r\nHost: a\rb",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1",
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked",
            "GET / HTTP/1.1\r\nHost: \u{7f}",
            "GET / HTTP/1.1\r\nHost: ä",
        ] {
            assert_eq!(get(head), Err(Malformed), "{head:?}");
        }
        assert_eq!(parse(b"GET /\0 HTTP/1.0"), Err(Malformed));
        assert_eq!(parse(b"GET /\xff HTTP/1.0"), Err(Malformed));
        for byte in 0..=u8::MAX {
            // Nothing panics, wherever a byte is changed.
            let whole = b"GET /metrics HTTP/1.1\r\nHost: a";
            for at in 0..whole.len() {
                let mut changed = whole.to_vec();
                changed[at] = byte;
                for head in [&changed[..], &changed[..at], &changed[at..]] {
                    if let Ok(request) = parse(head) {
                        assert!(is_token(request.method) && request.path.starts_with('/'));
                    }
                }
            }
        }
    }

    async fn served(patience: Patience) -> (std::net::SocketAddr, JoinHandle<()>) {
        let sizes = SocketSizes::default();
        let listener = bind("127.0.0.1", 0, sizes).await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let pages: Pages = Arc::new(|path| match path {
            "/x" => Some(async { Page::line(Status::Ok, "here") }.boxed()),
            "/panics" => Some(async { panic!("planted") }.boxed()),
            "/hangs" => Some(std::future::pending().boxed()),
            _ => None,
        });
        (address, crate::task::spawn(serve(listener, pages, patience)))
    }

    async fn ask(address: std::net::SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).await.expect("connects");
        stream.write_all(request).await.expect("sends");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer in whole");
        answer
    }

    const SHORT: Duration = Duration::from_millis(200);

    #[tokio::test]
    async fn each_request_gets_its_status_and_the_next_one_is_served() {
        let (address, serving) = served(Patience::default()).await;
        let huge = format!("GET /x HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(HEAD_BYTES_MAX));
        let endless = vec![b'a'; 2 * HEAD_BYTES_MAX];
        for (request, status) in [
            (&b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"[..], "200 OK"),
            (b"GET /y HTTP/1.1\r\nHost: a\r\n\r\n", "404 Not Found"),
            (b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", "405 Method Not Allowed"),
            (b"DELETE /x HTTP/1.0\r\n\r\n", "405 Method Not Allowed"),
            (b"GET /x\r\n\r\n", "400 Bad Request"),
            (b"\x16\x03\x01\x02\x00\x01", "400 Bad Request"),
            (b"\0\0\0\x10\0\x12\0\0", "400 Bad Request"),
            (huge.as_bytes(), "431 Request Header Fields Too Large"),
            (&endless, "431 Request Header Fields Too Large"),
            (b"GET /panics HTTP/1.0\r\n\r\n", "500 Internal Server Error"),
        ] {
            let answer = ask(address, request).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{answer}");
            let (head, body) = answer.split_once("\r\n\r\n").expect("a blank line");
            assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{answer}");
            assert_eq!(head.contains("Allow: GET"), status.starts_with("405"), "{answer}");
        }
        assert!(ask(address, b"GET /x HTTP/1.0\r\n\r\n").await.ends_with("\r\n\r\nhere\n"));
        assert!(ask(address, b"HEAD /x HTTP/1.0\r\n\r\n").await.ends_with("\r\n\r\n"), "no body");
        serving.abort();
    }

    /// Clients that say nothing hold every place, and give them back in time.
    #[tokio::test]
    async fn those_who_say_nothing_are_sent_away() {
        let (address, serving) = served(Patience { head: SHORT, ..Patience::default() }).await;
        let mut silent = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            let mut stream = TcpStream::connect(address).await.expect("connects");
            stream.write_all(b"GET /x HT").await.expect("sends");
            silent.push(stream);
        }
        assert!(ask(address, b"GET /x HTTP/1.0\r\n\r\n").await.contains("here"), "it had to wait and was served");
        for mut stream in silent {
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.expect("an answer");
            assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
        }
        serving.abort();
    }

    #[tokio::test]
    async fn a_page_that_does_not_come_is_given_up() {
        let (address, serving) = served(Patience { page: SHORT, ..Patience::default() }).await;
        let (slow, other) =
            tokio::join!(ask(address, b"GET /hangs HTTP/1.0\r\n\r\n"), ask(address, b"GET /x HTTP/1.0\r\n\r\n"));
        assert!(slow.starts_with("HTTP/1.1 503") && other.contains("200 OK"), "{slow}");
        serving.abort();
    }
}
