//! Bytes over TLS, and whoever does not speak it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

use super::{HandshakeError, Stream};
use crate::security::tls::TlsListener;
use crate::security::tls::testing::{self, Authority};
use crate::wire::frame::{FrameReader, Readable, Room};

struct Ends {
    broker: Arc<TlsListener>,
    client: Arc<TlsListener>,
}

fn ends() -> Ends {
    let authority = Authority::new("authority");
    let mut settings = testing::with(&authority.issue("broker", &["127.0.0.1"]), &[&authority.pem]);
    settings.client_auth = crate::config::ClientAuth::Requested;
    let client = testing::with(&authority.issue("alice", &[]), &[&authority.pem]);
    let open = |settings| TlsListener::new(settings, false).expect("opens");
    Ends { broker: open(settings), client: open(client) }
}

async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    (client.expect("connected"), accepted.expect("accepted").0)
}

async fn pair(ends: &Ends) -> (Stream, Stream) {
    let (client, server) = sockets().await;
    let config = ends.client.client().expect("a truststore");
    let (client, server) =
        tokio::join!(Stream::connect(client, config, "127.0.0.1"), Stream::accept(server, ends.broker.server()));
    (client.expect("shaken"), server.expect("shaken"))
}

#[tokio::test]
async fn bytes_arrive_as_they_were_sent_whatever_their_number() {
    let ends = ends();
    let (mut client, mut server) = pair(&ends).await;
    assert_eq!(server.certificates().map(<[_]>::len), Some(1));
    let principal = ends.broker.principal(server.certificates()).expect("a name");
    assert_eq!(principal.to_string(), "User:CN=alice,O=klamm");
    for length in [1, 100, 16_384, 16_385, 3_000_000] {
        let sent: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
        let mut got = vec![0; length];
        for _ in 0..2 {
            let (written, read) = tokio::join!(client.write_all(&sent), server.read_exact(&mut got));
            written.expect("written");
            read.expect("read");
            assert!(got == sent && !client.has_unsent(), "{length}");
            std::mem::swap(&mut client, &mut server);
        }
    }
}

/// Room for a large frame was set to zero again with each part of it that came.
#[tokio::test]
async fn a_read_touches_what_it_fills_and_no_more() {
    let ends = ends();
    let (mut client, mut server) = pair(&ends).await;
    client.write_all(b"part of a frame").await.expect("written");
    let mut room = vec![std::mem::MaybeUninit::uninit(); 1 << 20];
    let mut buf = ReadBuf::uninit(&mut room);
    std::future::poll_fn(|cx| Pin::new(&mut server).poll_read(cx, &mut buf)).await.expect("read");
    assert_eq!((buf.filled(), buf.initialized().len()), (&b"part of a frame"[..], 15));
}

#[tokio::test]
async fn an_end_that_was_announced_is_told_from_one_that_was_not() {
    let ends = ends();
    let (client, mut server) = pair(&ends).await;
    assert!(server.is_quiet() && !server.is_hung_up());
    drop(client);
    server.ready().await.expect("an end");
    assert_eq!(server.read(&mut [0; 10]).await.expect("an end"), 0);
    assert!(!server.is_quiet());
    let (client, mut server) = pair(&ends).await;
    let Stream::Tls(tls) = &client else { panic!("over TLS") };
    socket2::SockRef::from(tls.socket()).shutdown(std::net::Shutdown::Both).expect("cut");
    let cut = server.read(&mut [0; 10]).await.expect_err("cut");
    assert_eq!(cut.kind(), io::ErrorKind::UnexpectedEof);
    drop(client);
}

#[tokio::test]
async fn a_stream_is_quiet_until_something_comes() {
    let ends = ends();
    let (mut client, mut server) = pair(&ends).await;
    assert!(client.is_quiet() && server.is_quiet());
    server.write_all(b"x").await.expect("written");
    client.ready().await.expect("something");
    assert!(!client.is_quiet());
    assert_eq!(client.read_u8().await.expect("a byte"), b'x');
    assert!(client.is_quiet());
}

#[tokio::test]
async fn what_is_no_tls_is_refused_and_told_so() {
    let ends = ends();
    for sent in [
        &b"\x00\x00\x00\x10\x00\x12\x00\x00\x00\x00\x00\x01\x00\x01a"[..],
        b"GET / HTTP/1.1\r\n\r\n",
        &[0xff; 5000],
        // A record of more than TLS allows, and a handshake that announces 16 MiB.
        &[0x16, 3, 1, 0xff, 0xff, 1, 0, 0, 0],
        &[0x16, 3, 1, 0, 4, 1, 0xff, 0xff, 0xff],
        &[0x15, 3, 3, 0, 2, 2, 40],
    ] {
        let (mut client, server) = sockets().await;
        client.write_all(sent).await.expect("written");
        client.shutdown().await.expect("an end");
        let refused = Stream::accept(server, ends.broker.server()).await.expect_err("refused");
        let eof = matches!(&refused, HandshakeError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof);
        assert!(eof || matches!(refused, HandshakeError::Refused(_)), "{refused:?}");
        let mut told = Vec::new();
        // An alert, or nothing; a reset where not all was read.
        let ended = tokio::time::timeout(Duration::from_secs(20), client.read_to_end(&mut told)).await;
        assert!(ended.is_ok() && told.len() < 100, "{told:?}");
    }
}

/// Whoever sends a handshake that never ends is cut off before it costs more than what a real one may.
#[tokio::test]
async fn a_handshake_without_end_is_cut_off() {
    let ends = ends();
    let (mut client, server) = sockets().await;
    let flood = async move {
        // A ClientHello of 60,000 bytes after another, each in records of its own.
        let mut record = vec![0x16, 3, 1, 0x3f, 0xff];
        record.extend([1, 0, 0xff, 0xf0]);
        record.resize(5 + 0x3fff, 0);
        let mut sent = 0;
        while client.write_all(&record).await.is_ok() {
            sent += record.len();
        }
        sent
    };
    let accepted = Stream::accept(server, ends.broker.server());
    let (sent, accepted) =
        tokio::time::timeout(Duration::from_secs(60), async { tokio::join!(flood, accepted) }).await.expect("an end");
    assert!(accepted.is_err());
    assert!(sent < 16 << 20, "{sent} bytes were taken");
}

#[tokio::test]
async fn a_handshake_that_does_not_go_on_waits_for_its_caller_to_give_up() {
    let ends = ends();
    let (mut client, server) = sockets().await;
    client.write_all(&[0x16]).await.expect("written");
    let accepting = Stream::accept(server, ends.broker.server());
    assert!(tokio::time::timeout(Duration::from_millis(100), accepting).await.is_err());
}

#[tokio::test]
async fn plain_bytes_are_untouched() {
    let (client, server) = sockets().await;
    let (mut client, mut server) = (Stream::Plain(client), Stream::Plain(server));
    client.write_all(b"plain").await.expect("written");
    let mut got = [0; 5];
    server.read_exact(&mut got).await.expect("read");
    assert_eq!((&got, client.certificates(), client.has_unsent()), (b"plain", None, false));
    assert!(client.is_quiet() && server.is_quiet());
    drop(client);
    assert_eq!(server.read(&mut got).await.expect("an end"), 0);
    assert!(server.is_hung_up() && !server.is_quiet());
}

/// librdkafka's test 0097: whoever shows no certificate is told so in the words of TLS 1.2, as by Java.
#[tokio::test]
async fn a_certificate_that_is_missing_is_a_bad_one_in_tls_1_2() {
    let authority = Authority::new("authority");
    let mut settings = testing::with(&authority.issue("broker", &["127.0.0.1"]), &[&authority.pem]);
    settings.client_auth = crate::config::ClientAuth::Required;
    let mut bare = testing::settings("A");
    bare.stores.truststore_certificates = Some(crate::config::Secret::new(authority.pem));
    for (version, alert) in [("TLSv1.2", "BadCertificate"), ("TLSv1.3", "CertificateRequired")] {
        settings.enabled_protocols = vec![version.into()];
        let server_end = TlsListener::new(settings.clone(), false).expect("opens");
        let config = crate::security::tls::web::TowardsWeb::open(&bare).expect("legal").client();
        let (client, server) = sockets().await;
        let (client, server) =
            tokio::join!(Stream::connect(client, config, "127.0.0.1"), Stream::accept(server, server_end.server()));
        let refused = server.expect_err("no certificate");
        assert!(
            matches!(refused, HandshakeError::Refused(rustls::Error::NoCertificatesPresented)),
            "{version}: {refused:?}"
        );
        // Under TLS 1.3 the client learns it when it reads.
        let told = match client {
            Err(error) => format!("{error:?}"),
            Ok(mut client) => format!("{:?}", client.read(&mut [0]).await.expect_err("an alert")),
        };
        assert!(told.contains(alert), "{version}: {told}");
    }
}

/// It was noticed when the connection had been idle for as long as one may be.
#[tokio::test]
async fn an_end_in_the_middle_of_a_frame_is_noticed() {
    let ends = ends();
    for is_broken in [false, true] {
        let (mut client, mut server) = pair(&ends).await;
        let mut reader = FrameReader::new(1 << 20);
        client.write_all(&[&100_000_u32.to_be_bytes()[..], &[7; 20_000]].concat()).await.expect("written");
        let Stream::Tls(tls) = &mut client else { panic!("over TLS") };
        if is_broken {
            tls.socket()
                .try_write(&[23, 3, 3, 0, 20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0])
                .expect("sent");
        } else {
            tls.say_goodbye();
        }
        let read = tokio::time::timeout(Duration::from_secs(20), reader.next(&mut server, &mut Plenty)).await;
        assert!(read.expect("noticed, though the socket is open").is_err());
    }
}

/// Passes bytes on, a few at a time.
async fn pass_on(mut from: TcpStream, mut to: TcpStream, bytes: usize) {
    let (mut reader, mut back) = from.split();
    let (mut answers, mut writer) = to.split();
    let there = async {
        let mut part = vec![0; bytes];
        while let Ok(read @ 1..) = reader.read(&mut part).await {
            if writer.write_all(&part[..read]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // What is left of it is in the socket.
        writer.shutdown().await.ok();
    };
    tokio::join!(there, async { tokio::io::copy(&mut answers, &mut back).await.ok() });
}

/// Memory for any frame.
struct Plenty;

impl Room for Plenty {
    async fn hold(&mut self, _bytes: usize) {}

    async fn read(&mut self, read: impl Future<Output = io::Result<usize>> + Send) -> io::Result<usize> {
        read.await
    }
}

/// A read waits for much of a large frame at once; of what the session has already nothing more comes.
#[tokio::test]
async fn a_frame_is_whole_once_its_last_byte_has_come() {
    const SIZES: [usize; 8] = [16 << 10, 3, (16 << 10) + 7, 33_000, 100_000, 66_001, 300_000, 20_000];
    let ends = ends();
    for part in [97, 16_000, 16_406, 30_000, 150_000] {
        for is_tls in [false, true] {
            let ((client, far), (near, server)) = (sockets().await, sockets().await);
            tokio::spawn(pass_on(far, near, part));
            let (mut client, mut server) = if is_tls {
                let config = ends.client.client().expect("a truststore");
                let (client, server) = tokio::join!(
                    Stream::connect(client, config, "127.0.0.1"),
                    Stream::accept(server, ends.broker.server())
                );
                (client.expect("shaken"), server.expect("shaken"))
            } else {
                (Stream::Plain(client), Stream::Plain(server))
            };
            let mut reader = FrameReader::new(1 << 20);
            for size in if part < 1000 { &SIZES[..3] } else { &SIZES[..] } {
                // Nothing follows before it was read.
                let frame: Vec<u8> = [&(*size as u32).to_be_bytes()[..], &vec![7; *size]].concat();
                let room = &mut Plenty;
                let both = async { tokio::join!(client.write_all(&frame), reader.next(&mut server, room)) };
                let both = tokio::time::timeout(Duration::from_secs(20), both).await;
                let (written, read) = both.unwrap_or_else(|_| panic!("{size} in parts of {part}, tls {is_tls}"));
                written.expect("written");
                assert_eq!(read.expect("a frame").map(|frame| frame.len()), Some(*size));
            }
        }
    }
}
