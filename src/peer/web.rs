//! Questions to servers on the web: one connection for each, plain or over TLS, HTTP/1.1.
//!
//! No answer is longer than [`ANSWER_BYTES_MAX`], and none may take longer than the question says. Where a server sends
//! elsewhere nobody follows, so what is shown to it goes to nobody else.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::rt::ReadBufCursor;
use hyper::{Request, StatusCode};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::security::sasl::web::{ANSWER_BYTES_MAX, Question, Web, WebError};
use crate::transport::Stream;

/// The web itself.
#[derive(Debug)]
pub(crate) struct HttpWeb;

impl Web for HttpWeb {
    fn ask(&self, question: Question) -> BoxFuture<'_, Result<Vec<u8>, WebError>> {
        ask(question).boxed()
    }
}

/// What of a server's heads is looked at, in bytes.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// What of a refusal is told.
const SAID_CHARS_MAX: usize = 200;

async fn ask(question: Question) -> Result<Vec<u8>, WebError> {
    let (to_connect, to_answer) = question.patience;
    let request = request(&question)?;
    let opened = timeout(to_connect, open(&question)).await;
    let stream = opened.unwrap_or(Err(WebError::TimedOut(to_connect)))?;
    timeout(to_answer, exchange(stream, request)).await.unwrap_or(Err(WebError::TimedOut(to_answer)))
}

async fn open(question: &Question) -> Result<Stream, WebError> {
    let unreachable = |error: io::Error| WebError::Unreachable(error.to_string());
    let url = &question.url;
    let socket = TcpStream::connect((url.host.as_str(), url.port)).await.map_err(unreachable)?;
    match &question.tls {
        Some(tls) => {
            let shaken = Stream::connect(socket, tls.client(), &url.host).await;
            shaken.map_err(|error| WebError::Unreachable(error.to_string()))
        }
        None if url.is_secure => Err(WebError::Unreachable("nothing says whom to trust".into())),
        None => Ok(Stream::Plain(socket)),
    }
}

fn request(question: &Question) -> Result<Request<Full<Bytes>>, WebError> {
    let url = &question.url;
    let authority = url.authority();
    let own_port = if url.is_secure { ":443" } else { ":80" };
    let host = authority.strip_suffix(own_port).unwrap_or(&authority);
    let request = Request::builder().uri(&url.path).header(HOST, host);
    let request = request.header(ACCEPT, "application/json").header(CONNECTION, "close");
    let built = match &question.form {
        None => request.body(Full::default()),
        Some(form) => {
            let mut shown = HeaderValue::from_str(form.authorization.reveal())
                .map_err(|_| WebError::Unreachable("what is to be shown to it is no text of HTTP".into()))?;
            shown.set_sensitive(true);
            let request = request.method("POST").header(AUTHORIZATION, shown).header(CACHE_CONTROL, "no-cache");
            let request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
            request.body(Full::from(form.fields.clone()))
        }
    };
    built.map_err(|error| WebError::Unreachable(error.to_string()))
}

async fn exchange(stream: Stream, request: Request<Full<Bytes>>) -> Result<Vec<u8>, WebError> {
    let malformed = |error: hyper::Error| WebError::Malformed(error.to_string());
    let connection = http1::Builder::new().max_buf_size(HEAD_BYTES_MAX).handshake(Io(stream)).await;
    let (mut sender, connection) = connection.map_err(malformed)?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(malformed)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        match (status, body) {
            (StatusCode::OK | StatusCode::CREATED, Ok(body)) => match body.to_bytes() {
                empty if empty.is_empty() => Err(WebError::Malformed("it is empty".into())),
                body => Ok(body.to_vec()),
            },
            (StatusCode::OK | StatusCode::CREATED, Err(error)) if error.is::<LengthLimitError>() => {
                Err(WebError::TooLong)
            }
            (StatusCode::OK | StatusCode::CREATED, Err(error)) => Err(WebError::Malformed(error.to_string())),
            (status, body) => {
                let said = body.map(|body| said(&body.to_bytes())).unwrap_or_default();
                Err(WebError::Status { status: status.as_u16(), said })
            }
        }
    };
    let (mut connection, mut answer) = (pin!(connection), pin!(answer));
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        ended = &mut connection => match ended {
            // What came before is there still.
            Ok(()) => answer.await,
            Err(error) => Err(malformed(error)),
        },
    }
}

/// The reason in the body of a refusal, as RFC 6749 has it; empty: it gives none.
fn said(body: &[u8]) -> String {
    let Ok(refusal) = serde_json::from_slice::<serde_json::Value>(body) else { return String::new() };
    let text = |key: &str| refusal.get(key).and_then(serde_json::Value::as_str).unwrap_or_default();
    let said = format!("{} - {}", text("error"), text("error_description"));
    match said.len() > 3 {
        true => {
            let clean = said.chars().map(|c| if c.is_control() { ' ' } else { c });
            format!(" ({})", clean.take(SAID_CHARS_MAX).collect::<String>())
        }
        false => String::new(),
    }
}

/// A connection as the crate takes it.
struct Io(Stream);

impl hyper::rt::Read for Io {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, mut buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let mut bytes = [0; 4096];
        let room = buf.remaining().min(bytes.len());
        let mut read = ReadBuf::new(&mut bytes[..room]);
        ready!(Pin::new(&mut self.0).poll_read(cx, &mut read))?;
        buf.put_slice(read.filled());
        Poll::Ready(Ok(()))
    }
}

impl hyper::rt::Write for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The rest happens when it is dropped.
        self.poll_flush(cx)
    }
}

#[cfg(test)]
mod tests;
