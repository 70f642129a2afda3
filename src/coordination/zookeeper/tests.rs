//! A real server keeps every rule of the door; what only a real server can do: restarts, pauses, lost answers, crashes.

use std::time::Duration;

use bytes::Bytes;

use super::testing::ZookeeperServer;
use super::*;
use crate::coordination::SharedCoordination;
use crate::coordination::contract::{self, Two};

fn config(server: &ZookeeperServer, chroot: &str) -> ZookeeperConfig {
    ZookeeperConfig::new(server.address() + chroot)
}

async fn connect(config: &ZookeeperConfig) -> ZookeeperCoordination {
    ZookeeperCoordination::connect(config.clone()).await.expect("connected")
}

/// Waits until the session shows what is asked for.
async fn until(store: &ZookeeperCoordination, wanted: impl FnMut(&Session) -> bool) {
    let mut session = store.session();
    let seen = tokio::time::timeout(Duration::from_secs(60), session.wait_for(wanted)).await;
    seen.expect("in time").expect("the store lives");
}

fn session_id(store: &ZookeeperCoordination) -> i64 {
    match *store.session().borrow() {
        Session::Connected(id) => id,
        other => panic!("{other:?}"),
    }
}

async fn ephemeral(store: &ZookeeperCoordination, path: &str) -> Stat {
    store.create(path, Bytes::new(), CreateMode::Ephemeral).await.expect(path).1
}

#[tokio::test]
async fn keeps_every_rule_of_the_door() {
    let Some(server) = ZookeeperServer::start() else { return };
    contract::check_all(async |name| {
        let config = config(&server, &format!("/contract/{name}"));
        let (a, b) = tokio::join!(connect(&config), connect(&config));
        Two { a: Arc::new(a) as SharedCoordination, b: Arc::new(b) as SharedCoordination }
    })
    .await;
}

#[tokio::test]
async fn a_session_and_its_ephemerals_and_watches_survive_a_restart_of_the_server() {
    let Some(mut server) = ZookeeperServer::start() else { return };
    let config = config(&server, "/restart");
    let (a, b) = tokio::join!(connect(&config), connect(&config));
    let id = session_id(&a);
    let before = ephemeral(&a, "/e").await;
    let (_, changed) = b.get_and_watch("/e").await.expect("read");
    server.kill();
    until(&a, |now| *now == Session::Disconnected(id)).await;
    server.restart();
    until(&a, |now| *now == Session::Connected(id)).await;
    let (_, after) = a.get("/e").await.expect("answered").expect("still there");
    assert_eq!(after, before);
    a.set("/e", Bytes::from_static(b"x"), 0).await.expect("set");
    tokio::time::timeout(Duration::from_secs(60), changed)
        .await
        .expect("fires after the restart")
        .expect("and says so");
}

/// A session of five seconds, so that a test can outlast it, and a busy machine cannot.
fn short_session(server: &ZookeeperServer, chroot: &str) -> ZookeeperConfig {
    ZookeeperConfig {
        session_timeout: Duration::from_secs(5),
        request_timeout: Duration::from_secs(30),
        connection_timeout: Duration::from_secs(60),
        ..config(server, chroot)
    }
}

/// Resolved either way: by a message or by the end of the sender.
async fn resolved(changed: Changed) {
    tokio::time::timeout(Duration::from_secs(60), changed).await.expect("resolved").ok();
}

#[tokio::test]
async fn a_session_outlives_an_ensemble_that_is_gone_for_longer_than_it() {
    let Some(mut server) = ZookeeperServer::start() else { return };
    let store = connect(&short_session(&server, "/gone")).await;
    let id = session_id(&store);
    let before = ephemeral(&store, "/e").await;
    for _ in 0..2 {
        let (_, changed) = store.get_and_watch("/e").await.expect("read");
        server.kill();
        until(&store, |now| *now == Session::Disconnected(id)).await;
        // The crate gives the session up, and with it the watch.
        resolved(changed).await;
        assert_eq!(*store.session().borrow(), Session::Disconnected(id));
        let waiting = store.get("/e");
        server.restart();
        let (_, after) = waiting.await.expect("answered when it is back").expect("still there");
        assert_eq!(after, before);
        assert_eq!(session_id(&store), id);
    }
    store.set("/e", Bytes::from_static(b"x"), 0).await.expect("set");
    store.close().await;
    let other = connect(&short_session(&server, "/gone")).await;
    assert_eq!(other.get("/e").await.expect("read"), None, "closing ends the session");
}

#[tokio::test]
async fn a_session_without_an_owner_is_not_taken_up_again() {
    let Some(mut server) = ZookeeperServer::start() else { return };
    let store = connect(&short_session(&server, "/left")).await;
    ephemeral(&store, "/e").await;
    let (_, changed) = store.get_and_watch("/e").await.expect("read");
    server.kill();
    resolved(changed).await;
    drop(store);
    server.restart();
    let other = connect(&short_session(&server, "/left")).await;
    let (there, gone) = other.get_and_watch("/e").await.expect("read");
    if there.is_some() {
        tokio::time::timeout(Duration::from_secs(30), gone).await.expect("the server expires it").expect("and says so");
    }
}

#[tokio::test]
async fn a_session_that_the_ensemble_does_not_know_is_expired_and_a_new_one_starts() {
    let Some(mut server) = ZookeeperServer::start() else { return };
    let store = connect(&short_session(&server, "/ended")).await;
    let first = ephemeral(&store, "/e").await;
    let (_, changed) = store.get_and_watch("/e").await.expect("read");
    server.kill();
    server.forget();
    server.restart();
    until(&store, |now| *now == Session::Expired).await;
    resolved(changed).await;
    assert_eq!(store.get("/e").await, Err(CoordinationError::SessionExpired));
    store.reconnect().await.expect("a new session");
    assert_eq!(store.get("/e").await.expect("read"), None);
    let second = ephemeral(&store, "/e").await;
    assert_ne!(second.ephemeral_owner, first.ephemeral_owner);
    assert_eq!(session_id(&store), second.ephemeral_owner);
    store.reconnect().await.expect("nothing to do");
    assert_eq!(session_id(&store), second.ephemeral_owner);
}

#[tokio::test]
async fn a_call_that_a_pause_cuts_off_has_an_unknown_outcome() {
    let Some(server) = ZookeeperServer::start() else { return };
    let store = connect(&short_session(&server, "/pause")).await;
    ephemeral(&store, "/e").await;
    server.pause();
    let cut = store.set("/e", Bytes::new(), 0).await;
    assert!(matches!(cut, Err(CoordinationError::Unknown(_))), "{cut:?}");
    server.resume();
    // Whether the session has expired is the server's to say, and it says it.
    until(&store, |now| matches!(now, Session::Connected(_) | Session::Expired)).await;
}

#[tokio::test]
async fn a_read_after_an_unknown_outcome_settles_it() {
    let Some(server) = ZookeeperServer::start() else { return };
    let config = ZookeeperConfig { request_timeout: Duration::from_millis(300), ..config(&server, "/unknown") };
    let store = connect(&config).await;
    let other = connect(&ZookeeperConfig { request_timeout: Duration::from_secs(18), ..config }).await;
    other.create("/n", Bytes::new(), CreateMode::Persistent).await.expect("created");
    for round in 0..5 {
        server.pause();
        let cut = store.set("/n", Bytes::from_static(b"x"), round).await;
        assert!(matches!(cut, Err(CoordinationError::Unknown(_))), "{cut:?}");
        let cut = store.get("/n").await;
        assert!(matches!(cut, Err(CoordinationError::Unknown(_))), "a read needs the server, too: {cut:?}");
        server.resume();
        let settled = loop {
            match store.get("/n").await {
                Ok(found) => break found.expect("there").1.version,
                Err(CoordinationError::Unknown(_)) => {}
                Err(other) => panic!("{other:?}"),
            }
        };
        // The connection was never cut, so the write was only late.
        assert_eq!(settled, round + 1);
        let (_, stat) = other.get("/n").await.expect("answered").expect("there");
        assert_eq!(stat.version, settled);
    }
}

#[tokio::test]
async fn connecting_to_nobody_ends_within_the_connection_time_out() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let silent = ZookeeperConfig {
        connection_timeout: Duration::from_millis(300),
        ..ZookeeperConfig::new(listener.local_addr().expect("bound").to_string())
    };
    let refused = ZookeeperCoordination::connect(silent).await;
    assert!(matches!(refused, Err(CoordinationError::Unknown(_))), "{refused:?}");
}

#[tokio::test]
async fn closing_without_a_server_ends_within_the_request_time_out() {
    let Some(mut server) = ZookeeperServer::start() else { return };
    let config = ZookeeperConfig { request_timeout: Duration::from_millis(300), ..config(&server, "") };
    let store = connect(&config).await;
    server.kill();
    store.close().await;
    assert_eq!(*store.session().borrow(), Session::Closed);
}

#[tokio::test]
async fn no_more_requests_are_under_way_than_the_bound() {
    let Some(server) = ZookeeperServer::start() else { return };
    for (max_in_flight, waits) in [(1, true), (2, false)] {
        let store = connect(&ZookeeperConfig { max_in_flight, ..config(&server, "") }).await;
        let under_way = store.permits.acquire().await.expect("never closed");
        let mut next = Box::pin(store.get("/"));
        let answer = tokio::time::timeout(Duration::from_millis(200), &mut next).await;
        if waits {
            assert!(answer.is_err(), "it waits for the other");
            drop(under_way);
            next.await.expect("read");
        } else {
            let answer = if let Ok(answer) = answer { answer } else { next.await };
            answer.expect("read");
        }
    }
}

/// All of them were given the time of one, so that ten thousand were never done.
#[tokio::test]
async fn many_writes_may_take_longer_than_one() {
    let Some(server) = ZookeeperServer::start() else { return };
    let store = connect(&ZookeeperConfig { max_in_flight: 1, ..config(&server, "") }).await;
    let create = |path: String| vec![Op::Create { path, data: Bytes::new(), mode: CreateMode::Persistent }];
    let begun = std::time::Instant::now();
    for at in 0..50 {
        store.multi(create(format!("/one-{at}"))).await.expect("created");
    }
    let each = begun.elapsed() / 50;
    let request_timeout = Duration::from_millis(300).max(50 * each);
    let count = (3 * request_timeout.as_micros() / each.as_micros().max(1)) as usize;
    store.close().await;
    let store = connect(&ZookeeperConfig { max_in_flight: 1, request_timeout, ..config(&server, "") }).await;
    let answers = store.multi_all((0..count).map(|at| create(format!("/many-{at}"))).collect()).await;
    let failed = answers.iter().find(|answer| answer.is_err());
    assert_eq!((answers.len(), failed), (count, None));
    // What nobody answers is not waited for again and again.
    server.pause();
    let begun = std::time::Instant::now();
    let answers = store.multi_all((0..count).map(|at| create(format!("/never-{at}"))).collect()).await;
    let unknown =
        |answer: &Result<_, MultiError>| matches!(answer, Err(MultiError { error: CoordinationError::Unknown(_), .. }));
    assert!(answers.len() == count && answers.iter().all(unknown));
    assert!(begun.elapsed() < 10 * request_timeout, "{:?}", begun.elapsed());
    server.resume();
}

const SECURE: NodeAcls = NodeAcls { open: "/open", hidden: &["/a/hidden"] };

fn login(password: &str) -> Option<Login> {
    Some(Login { username: "kafka".into(), password: Secret::new(password) })
}

#[tokio::test]
async fn whoever_proves_who_it_is_makes_nodes_that_others_may_not_change() {
    let Some(mut server) = ZookeeperServer::start_with_users(&[("kafka", "hunter2"), ("other", "x")]) else { return };
    let plain = config(&server, "/acl");
    let ours = ZookeeperConfig {
        login: login("hunter2"),
        acls: Some(SECURE),
        // A machine that stands still for a while does not end what is made for it.
        session_timeout: Duration::from_secs(60),
        ..short_session(&server, "/acl")
    };
    let store = connect(&ours).await;
    let persistent =
        |path: &str| Op::Create { path: path.to_owned(), data: Bytes::from_static(b"x"), mode: CreateMode::Persistent };
    store.multi(["/a", "/a/hidden", "/a/hidden/b", "/open"].map(persistent).into()).await.expect("made");
    store.create("/a/shown", Bytes::new(), CreateMode::Ephemeral).await.expect("made");
    let stranger = connect(&plain).await;
    let other = Login { username: "other".into(), password: Secret::new("x") };
    let other = connect(&ZookeeperConfig { login: Some(other), ..plain.clone() }).await;
    for foreign in [&stranger, &other] {
        let refused = |outcome: Result<_, CoordinationError>| matches!(outcome, Err(CoordinationError::Refused(_)));
        assert!(foreign.get("/a").await.expect("everybody may read it").is_some());
        assert!(foreign.get("/a/shown").await.expect("everybody may read it").is_some());
        assert!(
            refused(foreign.get("/a/hidden").await.map(drop)) && refused(foreign.get("/a/hidden/b").await.map(drop))
        );
        assert!(refused(foreign.set("/a", Bytes::new(), -1).await.map(drop)));
        assert!(refused(foreign.create("/a/new", Bytes::new(), CreateMode::Persistent).await.map(drop)));
        assert!(refused(foreign.delete("/a/shown", -1).await));
        foreign.set("/open", Bytes::new(), -1).await.expect("it is open");
    }
    // Also after the connection was lost, and taken up again.
    let id = session_id(&store);
    server.kill();
    until(&store, |now| *now == Session::Disconnected(id)).await;
    server.restart();
    until(&store, |now| matches!(now, Session::Connected(_) | Session::Expired)).await;
    loop {
        store.reconnect().await.expect("a session");
        match store.set("/a/hidden/b", Bytes::from_static(b"y"), -1).await {
            // A server that stood still may refuse a proof that it accepts from the next session.
            Err(CoordinationError::SessionExpired) => {}
            outcome => {
                outcome.expect("ours");
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_wrong_password_ends_the_start_and_is_not_told() {
    let Some(server) = ZookeeperServer::start_with_users(&[("kafka", "hunter2")]) else { return };
    let short = Duration::from_secs(5);
    let wrong =
        ZookeeperConfig { login: login("hunter3"), connection_timeout: short, ..short_session(&server, "/wrong") };
    let refused = ZookeeperCoordination::connect(wrong).await.expect_err("refused");
    assert!(!format!("{refused} {refused:?}").contains("hunter"), "{refused:?}");
}

/// Passes bytes between clients and a server, and notes what clients ask for.
struct Eavesdropper {
    address: String,
    /// Codes of requests.
    asked: Arc<parking_lot::Mutex<Vec<i32>>>,
    /// Ends the connections of the moment.
    cut: tokio::sync::broadcast::Sender<()>,
}

impl Eavesdropper {
    async fn start(server: &ZookeeperServer) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("bound").to_string();
        let (asked, (cut, _)) = (Arc::default(), tokio::sync::broadcast::channel(1));
        let this = Self { address, asked, cut };
        let (asked, cut, server) = (Arc::clone(&this.asked), this.cut.clone(), server.address());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = tokio::net::TcpStream::connect(&server).await else { continue };
                tokio::spawn(Self::pass(client, server, Arc::clone(&asked), cut.subscribe()));
            }
        });
        this
    }

    async fn pass(
        mut client: tokio::net::TcpStream,
        mut server: tokio::net::TcpStream,
        asked: Arc<parking_lot::Mutex<Vec<i32>>>,
        mut cut: tokio::sync::broadcast::Receiver<()>,
    ) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let ((mut from, mut to), (mut back, mut there)) = (client.split(), server.split());
        let forth = async {
            let mut frames = 0;
            while let Ok(size) = from.read_i32().await {
                let mut frame = vec![0; size as usize];
                from.read_exact(&mut frame).await?;
                // The first one opens the session.
                if frames > 0 {
                    asked.lock().push(i32::from_be_bytes(frame[4..8].try_into().expect("four bytes")));
                }
                frames += 1;
                there.write_i32(size).await?;
                there.write_all(&frame).await?;
            }
            std::io::Result::Ok(())
        };
        tokio::select! {
            _ = forth => {}
            _ = tokio::io::copy(&mut back, &mut to) => {}
            _ = cut.recv() => {}
        }
    }
}

/// A server that lags behind the one before gave what was true some time ago.
#[tokio::test]
async fn a_new_client_has_its_server_catch_up_before_anybody_reads_by_it() {
    const GET_DATA: i32 = 4;
    const GET_CHILDREN: i32 = 8;
    const SYNC: i32 = 9;
    const GET_CHILDREN_2: i32 = 12;
    let Some(server) = ZookeeperServer::start() else { return };
    let between = Eavesdropper::start(&server).await;
    let config = ZookeeperConfig {
        session_timeout: Duration::from_millis(1500),
        ..ZookeeperConfig::new(between.address.clone() + "/sync")
    };
    let store = connect(&config).await;
    let (id, deadline) = (session_id(&store), tokio::time::Instant::now() + Duration::from_secs(60));
    // Until the crate has given the session up and another client takes it up, or the server has ended it.
    server.pause();
    let _ = between.cut.send(());
    let given_up = |live: &Arc<session::Live>| live.client_is_terminated();
    while !given_up(&store.live) {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    between.asked.lock().clear();
    server.resume();
    until(&store, |now| matches!(now, Session::Connected(_) | Session::Expired)).await;
    store.reconnect().await.expect("a session");
    store.children("/").await.expect("read");
    let reads = [GET_DATA, GET_CHILDREN, GET_CHILDREN_2, SYNC];
    let asked: Vec<i32> = between.asked.lock().iter().copied().filter(|code| reads.contains(code)).collect();
    assert_eq!((asked.len(), asked[0]), (2, SYNC), "{asked:?}, session {id} before");
}
