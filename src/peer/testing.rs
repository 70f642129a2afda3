//! A broker on the other side of a socket, that answers by a script.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::address::{Address, Addresses};
use super::versions::Versions;
use super::{Patience, Peers};
use crate::clock::SystemClock;
use crate::cluster::control::{ControlHead, Endpoint, LiveBroker, UpdateMetadata};
use crate::cluster::image::ImagePublisher;
use crate::config::ProtocolVersion;
use crate::task;
use crate::types::{BrokerEpoch, BrokerId, ControllerEpoch};
use crate::wire::codec;
use crate::wire::header::RequestHeader;

/// What it does with one request.
#[derive(Debug, Clone)]
pub(super) enum Act {
    /// This body, with the header that belongs to it.
    Answer(Bytes),
    /// The same under another correlation id.
    AnswerAnother(Bytes),
    /// The frame's length alone.
    Announce(i32),
    /// The same after a while.
    AnswerAfter(Duration, Bytes),
    /// Nothing, ever.
    Silence,
    /// The answer, and the end of the connection.
    AnswerAndClose(Bytes),
    Close,
}

/// A request as it came.
#[derive(Debug, Clone)]
pub(super) struct Came {
    /// Which of the connections it came on, from 1.
    pub(super) connection: usize,
    pub(super) header: RequestHeader,
    pub(super) body: Bytes,
}

#[derive(Debug)]
pub(super) struct Other {
    pub(super) address: Address,
    came: Arc<Mutex<Vec<Came>>>,
}

impl Other {
    /// Acts by `script`, one act per request, over however many connections; after its end it is silent.
    pub(super) async fn start(script: impl IntoIterator<Item = Act>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let script = Arc::new(Mutex::new(script.into_iter().collect::<VecDeque<_>>()));
        let came = Arc::<Mutex<Vec<Came>>>::default();
        let its_came = Arc::clone(&came);
        task::spawn(async move {
            for connection in 1.. {
                let (stream, _) = listener.accept().await.expect("accepts");
                task::spawn(serve(stream, connection, Arc::clone(&script), Arc::clone(&its_came)));
            }
        });
        Self { address: Address { host: "127.0.0.1".into(), port, tls: None, login: None }, came }
    }

    pub(super) fn came(&self) -> Vec<Came> {
        self.came.lock().clone()
    }

    /// As broker `id` of the cluster.
    pub(super) fn registered(&self, id: i32) -> LiveBroker {
        let endpoint = |listener: &str, port| Endpoint {
            listener: listener.into(),
            security_protocol: "PLAINTEXT".into(),
            host: self.address.host.clone(),
            port,
        };
        // The first is for clients, and nobody is there.
        let endpoints = vec![endpoint("CLIENTS", 1), endpoint("BROKERS", self.address.port)];
        LiveBroker { id: BrokerId(id), endpoints, rack: None }
    }
}

async fn serve(
    mut stream: TcpStream,
    connection: usize,
    script: Arc<Mutex<VecDeque<Act>>>,
    came: Arc<Mutex<Vec<Came>>>,
) {
    loop {
        let Ok(length) = stream.read_u32().await else { return };
        let mut frame = BytesMut::zeroed(length as usize);
        if stream.read_exact(&mut frame).await.is_err() {
            return;
        }
        let header = RequestHeader::take(&mut frame, codec::is_flexible).expect("a header");
        let flexible = codec::is_flexible(header.key, header.version);
        let id = header.correlation_id;
        came.lock().push(Came { connection, header, body: frame.freeze() });
        let act = script.lock().pop_front().unwrap_or(Act::Silence);
        let (answer, id, closes) = match act {
            Act::Answer(body) => (body, id, false),
            Act::AnswerAnother(body) => (body, id + 1, false),
            Act::AnswerAndClose(body) => (body, id, true),
            Act::AnswerAfter(pause, body) => {
                tokio::time::sleep(pause).await;
                (body, id, false)
            }
            Act::Announce(length) => {
                stream.write_i32(length).await.expect("written");
                std::future::pending().await
            }
            Act::Silence => std::future::pending().await,
            Act::Close => return,
        };
        let mut out = BytesMut::new();
        out.put_u32((4 + usize::from(flexible) + answer.len()) as u32);
        out.put_i32(id);
        if flexible {
            out.put_u8(0);
        }
        out.put_slice(&answer);
        if stream.write_all(&out).await.is_err() || closes {
            return;
        }
    }
}

/// Broker 1 in a cluster of these, the first of which is the controller.
pub(super) fn peers(brokers: &[LiveBroker], controller: i32) -> Peers {
    let image = Arc::new(ImagePublisher::default());
    let (controller_epoch, broker_epoch) = (ControllerEpoch(1), BrokerEpoch(1));
    image.apply(&UpdateMetadata {
        head: ControlHead { controller: BrokerId(controller), controller_epoch, broker_epoch },
        topics: vec![],
        live_brokers: brokers.to_vec(),
    });
    let patience = Duration::from_secs(20);
    Peers {
        me: BrokerId(1),
        addresses: Addresses::new(Arc::clone(&image), "BROKERS", None),
        control: Addresses::new(image, "BROKERS", None),
        versions: Versions::of(ProtocolVersion::LATEST),
        clock: Arc::new(SystemClock),
        patience: Patience { controller: patience, request: patience, replica: patience },
    }
}
