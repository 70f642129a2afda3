//! The embedded tree keeps every rule of the door, over restarts and failing disks too.

use std::sync::atomic::Ordering;

use super::testing::TreeDir;
use super::*;
use crate::coordination::SharedCoordination;
use crate::coordination::contract::{self, Two};

fn open(dir: &Arc<TreeDir>) -> EmbeddedCoordination {
    EmbeddedCoordination::open(Arc::clone(dir) as SharedLogDir).expect("opened")
}

fn create_op(path: impl Into<String>, mode: CreateMode) -> Op {
    Op::Create { path: path.into(), data: Bytes::from_static(b"x"), mode }
}

async fn create(store: &EmbeddedCoordination, path: &str, mode: CreateMode) -> (String, Stat) {
    store.create(path, Bytes::new(), mode).await.expect(path)
}

#[tokio::test]
async fn keeps_every_rule_of_the_door() {
    contract::check_all(async |_| {
        let a = open(&TreeDir::new());
        let b = a.connect();
        Two { a: Arc::new(a) as SharedCoordination, b: Arc::new(b) as SharedCoordination }
    })
    .await;
}

#[tokio::test]
async fn persistent_nodes_outlive_the_process_and_ephemerals_do_not() {
    let dir = TreeDir::new();
    let store = open(&dir);
    create(&store, "/n", CreateMode::Persistent).await;
    create(&store, "/n/gone", CreateMode::Persistent).await;
    create(&store, "/e", CreateMode::Ephemeral).await;
    let stat = store.set("/n", Bytes::from_static(b"data"), 0).await.expect("set");
    store.delete("/n/gone", -1).await.expect("deleted");
    let again = open(&dir.reopened());
    assert_eq!(again.children("/").await, Ok(vec!["n".into()]));
    assert_eq!(again.children("/n").await, Ok(vec![]));
    assert_eq!(again.get("/n").await, Ok(Some((Bytes::from_static(b"data"), stat))));
}

#[tokio::test]
async fn transaction_ids_and_sequences_rise_over_restarts() {
    let mut dir = TreeDir::new();
    let (mut czxid, mut sequence) = (0, String::new());
    for _ in 0..4 {
        let store = open(&dir);
        let (_, stat) = create(&store, "/broker", CreateMode::Ephemeral).await;
        assert!(stat.czxid > czxid);
        assert_ne!(stat.ephemeral_owner, 0);
        let (path, stat) = create(&store, "/change_", CreateMode::PersistentSequential).await;
        assert!(path > sequence, "{path} after {sequence}");
        store.delete(&path, -1).await.expect("deleted");
        (czxid, sequence) = (stat.czxid, path);
        dir = dir.reopened();
    }
}

#[tokio::test]
async fn opening_writes_nothing_and_ephemerals_alone_cost_one_unsynced_reservation() {
    let dir = TreeDir::new();
    let store = open(&dir);
    assert_eq!(dir.commits.load(Ordering::SeqCst), 0);
    for path in ["/a", "/b", "/c"] {
        create(&store, path, CreateMode::Ephemeral).await;
    }
    store.close().await;
    assert_eq!((dir.commits.load(Ordering::SeqCst), dir.syncs.load(Ordering::SeqCst)), (1, 0));
}

#[tokio::test]
async fn a_thousand_partitions_take_one_sync() {
    let dir = TreeDir::new();
    let store = open(&dir);
    crate::coordination::ensure_path(&store, "/topics/t/partitions").await.expect("made");
    let before = dir.syncs.load(Ordering::SeqCst);
    let path = |at| format!("/topics/t/partitions/{at}");
    let batches = (0..1000).map(|at| {
        vec![create_op(path(at), CreateMode::Persistent), create_op(path(at) + "/state", CreateMode::Persistent)]
    });
    let results = store.multi_all(batches.collect()).await;
    assert!(results.iter().all(Result::is_ok));
    assert_eq!(dir.syncs.load(Ordering::SeqCst) - before, 1);
    let again = open(&dir.reopened());
    assert_eq!(again.children("/topics/t/partitions").await.map(|names| names.len()), Ok(1000));
}

#[tokio::test]
async fn concurrent_writes_share_rounds() {
    let dir = TreeDir::new();
    let store = open(&dir);
    dir.hold();
    let writes = (0..100).map(|at| store.multi(vec![create_op(format!("/n{at}"), CreateMode::Persistent)]));
    let all = futures_util::future::join_all(writes);
    let release = async {
        tokio::task::yield_now().await;
        dir.release();
    };
    let (results, ()) = tokio::join!(all, release);
    assert!(results.iter().all(Result::is_ok));
    assert!(dir.syncs.load(Ordering::SeqCst) <= 2, "{dir:?}");
}

#[tokio::test]
async fn nothing_is_shown_before_it_is_on_disk() {
    let dir = TreeDir::new();
    let store = open(&dir);
    let (_, mut changed) = store.get_and_watch("/n").await.expect("read");
    dir.hold();
    let mut write = std::pin::pin!(store.create("/n", Bytes::new(), CreateMode::Persistent));
    let mut read = std::pin::pin!(store.get("/n"));
    for _ in 0..10 {
        assert!((&mut write).now_or_never().is_none());
        assert!((&mut read).now_or_never().is_none());
        assert!(changed.try_recv().is_err());
        tokio::task::yield_now().await;
    }
    dir.release();
    let (_, stat) = write.await.expect("created");
    assert_eq!(read.await, Ok(Some((Bytes::new(), stat))));
    changed.await.expect("fired");
}

#[tokio::test]
async fn a_full_disk_takes_back_what_gathered_and_later_writes_succeed() {
    let dir = TreeDir::new();
    let store = open(&dir);
    create(&store, "/kept", CreateMode::Persistent).await;
    let (_, kept) = store.get("/kept").await.expect("read").expect("there");
    dir.hold();
    *dir.fault.lock() = Some(StorageError::Full { dir: "tree".into() });
    let other = store.connect();
    let writes = async {
        tokio::join!(
            store.multi(vec![create_op("/lost", CreateMode::Persistent)]),
            store.multi(vec![create_op("/lost/e", CreateMode::Ephemeral)]),
            store.multi(vec![Op::Set { path: "/kept".into(), data: Bytes::new(), version: 0 }]),
            store.multi(vec![Op::Delete { path: "/kept".into(), version: 1 }]),
            other.multi(vec![create_op("/e", CreateMode::Ephemeral)]),
        )
    };
    let release = async {
        tokio::task::yield_now().await;
        other.end(Session::Closed).now_or_never();
        dir.release();
    };
    let (refused, ()) = tokio::join!(writes, release);
    for result in [refused.0, refused.1, refused.2, refused.3, refused.4] {
        assert!(matches!(result, Err(MultiError { error: CoordinationError::Refused(_), .. })), "{result:?}");
    }
    *dir.fault.lock() = None;
    assert_eq!(store.children("/").await, Ok(vec!["kept".into()]));
    assert_eq!(store.get("/kept").await.map(|found| found.map(|(_, stat)| stat)), Ok(Some(kept)));
    let (_, stat) = create(&store, "/new", CreateMode::Persistent).await;
    assert!(stat.czxid > kept.czxid);
    let again = open(&dir.reopened());
    assert_eq!(again.children("/").await, Ok(vec!["kept".into(), "new".into()]));
    assert!(create(&again, "/e", CreateMode::Ephemeral).await.1.czxid > stat.czxid);
}

#[tokio::test]
async fn an_offline_directory_leaves_the_outcome_unknown_and_refuses_what_follows() {
    let dir = TreeDir::new();
    let store = open(&dir);
    *dir.fault.lock() = Some(StorageError::Stopped { dir: "tree".into(), reason: "broken".into() });
    let cut = store.create("/n", Bytes::new(), CreateMode::Persistent).await;
    assert!(matches!(cut, Err(CoordinationError::Unknown(_))), "{cut:?}");
    assert!(matches!(store.get("/n").await, Err(CoordinationError::Refused(_))));
    assert!(matches!(*store.session().borrow(), Session::Disconnected(_)));
}

#[tokio::test]
async fn an_expired_session_loses_its_ephemerals_and_reconnects_with_a_new_id() {
    let store = open(&TreeDir::new());
    let other = store.connect();
    let (_, first) = create(&store, "/e", CreateMode::Ephemeral).await;
    let (_, changed) = store.get_and_watch("/e").await.expect("read");
    let mut session = store.session();
    session.mark_unchanged();
    store.expire().await;
    changed.await.expect("a lost session counts as changed");
    assert_eq!(*session.borrow_and_update(), Session::Expired);
    assert_eq!(store.get("/e").await, Err(CoordinationError::SessionExpired));
    assert_eq!(other.get("/e").await, Ok(None));
    store.reconnect().await.expect("connected");
    let (_, second) = create(&store, "/e", CreateMode::Ephemeral).await;
    assert_ne!(second.ephemeral_owner, first.ephemeral_owner);
    assert_eq!(*session.borrow_and_update(), Session::Connected(second.ephemeral_owner));
}

#[tokio::test]
async fn a_node_that_cannot_be_read_refuses_to_open() {
    let dir = TreeDir::new();
    dir.disk.lock().insert(Bytes::from_static(b"N\0n"), Bytes::from_static(b"short"));
    let refused = EmbeddedCoordination::open(dir as SharedLogDir);
    assert!(matches!(refused, Err(StorageError::Read { .. })));
}

#[test]
fn the_golden_node_reads_back() {
    let mut tree = Tree::new(Vec::new());
    let mut changes = Changes::default();
    let create = Op::Create { path: "/a".into(), data: Bytes::new(), mode: CreateMode::Persistent };
    tree.multi(&[create], Transaction { zxid: 1, session: 7 }, &mut changes).expect("created");
    let set = Op::Set { path: "/a".into(), data: Bytes::from_static(b"x"), version: 0 };
    tree.multi(&[set], Transaction { zxid: 2, session: 7 }, &mut changes).expect("set");
    let golden = [&[1][..], &1i64.to_be_bytes(), &2i64.to_be_bytes(), &1i32.to_be_bytes(), &[0; 4], b"x"].concat();
    let node = tree.get("/a").expect("there");
    assert_eq!(node.encode(), golden);
    assert_eq!(Node::decode(&golden).as_ref(), Some(node));
    assert_eq!(tree::disk_key(&tree::key("/a")), &b"N\0a"[..]);
    assert_eq!(tree::key_from_disk(b"N\0a"), Some("\0a".into()));
}
