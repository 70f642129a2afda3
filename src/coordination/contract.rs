//! The suite that every implementation of [`Coordination`] passes: one rule of the door per function.
//!
//! A rule gets two sessions on one store that holds nothing but the root. Nothing here knows which store it is.

use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::*;

/// Two sessions on one empty store.
pub(super) struct Two {
    pub(super) a: SharedCoordination,
    pub(super) b: SharedCoordination,
}

/// Name and body of a rule.
pub(super) type Rule = (&'static str, fn(Two) -> BoxFuture<'static, ()>);

macro_rules! rules {
    ($($name:ident)*) => {
        /// Every rule.
        pub(super) const RULES: &[Rule] = &[$((stringify!($name), |two| $name(two).boxed())),*];
    };
}

rules! {
    a_created_node_has_version_0_and_its_data
    a_node_is_created_once
    the_parent_must_exist
    the_root_exists_and_stays
    illegal_paths_are_refused
    an_oversized_request_is_refused_before_it_is_sent
    a_missing_node_reads_as_none_and_its_children_as_no_node
    a_set_raises_the_version_and_the_mzxid_alone
    a_wrong_version_changes_nothing
    a_node_with_children_cannot_be_deleted
    a_deleted_node_starts_again_at_version_0_with_a_larger_czxid
    children_are_sorted_names
    sequences_rise_per_parent_and_are_never_given_twice
    an_ephemeral_belongs_to_its_session_and_has_no_children
    closing_a_session_removes_its_ephemerals_alone
    a_multi_applies_in_order_and_sees_itself
    a_refused_multi_names_the_operation_and_changes_nothing
    an_empty_multi_succeeds
    a_check_guards_a_multi
    an_ephemeral_registered_by_multi_has_its_czxid_in_the_second_result
    many_multis_answer_in_order_each_for_itself
    a_data_watch_fires_on_set_after_the_change_is_readable
    a_data_watch_on_a_missing_node_fires_on_creation
    a_data_watch_fires_on_deletion
    a_data_watch_ignores_children
    a_child_watch_fires_on_creation_and_deletion_of_a_child
    a_child_watch_ignores_data_and_grandchildren
    a_child_watch_fires_on_deletion_of_its_node
    a_watch_fires_once_and_is_armed_again_by_reading
    watches_of_other_sessions_fire_when_an_ephemeral_goes
    a_refused_write_fires_no_watch
    closing_a_session_resolves_its_watches_and_refuses_later_calls
    ensure_paths_makes_every_parent_and_leaves_what_is_there
    concurrent_writers_of_one_version_have_one_winner
}

/// Opens two sessions per rule and checks every rule.
pub(super) async fn check_all<F: Future<Output = Two>>(mut open: impl FnMut(&'static str) -> F) {
    for (name, rule) in RULES {
        let two = open(name).await;
        let done =
            tokio::time::timeout(Duration::from_secs(60), std::panic::AssertUnwindSafe(rule(two)).catch_unwind());
        match done.await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => panic!("rule broken: {name}"),
            Err(_) => panic!("rule never came to an end: {name}"),
        }
    }
}

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

async fn create(store: &SharedCoordination, path: &str, data: &'static str) -> Stat {
    store.create(path, bytes(data), CreateMode::Persistent).await.expect(path).1
}

async fn read(store: &SharedCoordination, path: &str) -> Option<(Bytes, Stat)> {
    store.get(path).await.expect(path)
}

async fn exists(store: &SharedCoordination, path: &str) -> bool {
    read(store, path).await.is_some()
}

fn create_op(path: &str, data: &'static str) -> Op {
    Op::Create { path: path.into(), data: bytes(data), mode: CreateMode::Persistent }
}

fn set_op(path: &str, data: &'static str, version: i32) -> Op {
    Op::Set { path: path.into(), data: bytes(data), version }
}

async fn fires(changed: Changed) {
    tokio::time::timeout(Duration::from_secs(10), changed).await.expect("the watch fires").expect("and says so");
}

/// Waits a little: long enough for a watch that wrongly fires to be seen.
async fn stays_silent(changed: &mut Changed) {
    assert!(tokio::time::timeout(Duration::from_millis(30), changed).await.is_err(), "the watch must not fire");
}

async fn a_created_node_has_version_0_and_its_data(two: Two) {
    let (path, stat) = two.a.create("/n", bytes("x"), CreateMode::Persistent).await.expect("created");
    assert_eq!((path.as_str(), stat.version, stat.ephemeral_owner), ("/n", 0, 0));
    assert!(stat.czxid > 0 && stat.czxid == stat.mzxid);
    assert_eq!(read(&two.a, "/n").await, Some((bytes("x"), stat)));
    let other = read(&two.b, "/n").await;
    assert_eq!(other, Some((bytes("x"), stat)));
    let second = create(&two.a, "/m", "").await;
    assert!(second.czxid > stat.czxid, "transaction ids rise");
    assert_eq!(read(&two.a, "/m").await, Some((Bytes::new(), second)));
}

async fn a_node_is_created_once(two: Two) {
    create(&two.a, "/n", "x").await;
    for store in [&two.a, &two.b] {
        let again = store.create("/n", bytes("y"), CreateMode::Persistent).await;
        assert_eq!(again, Err(CoordinationError::NodeExists("/n".into())));
    }
    assert_eq!(read(&two.a, "/n").await.map(|(data, _)| data), Some(bytes("x")));
}

async fn the_parent_must_exist(two: Two) {
    let orphan = two.a.create("/no/child", Bytes::new(), CreateMode::Persistent).await;
    assert_eq!(orphan, Err(CoordinationError::NoNode("/no/child".into())));
    assert!(!exists(&two.a, "/no").await);
}

async fn the_root_exists_and_stays(two: Two) {
    assert!(exists(&two.a, "/").await);
    assert_eq!(two.a.children("/").await, Ok(vec![]));
    let made = two.a.create("/", Bytes::new(), CreateMode::Persistent).await;
    assert!(matches!(made, Err(CoordinationError::NodeExists(_) | CoordinationError::Refused(_))), "{made:?}");
    assert!(matches!(two.a.delete("/", -1).await, Err(CoordinationError::Refused(_))));
}

async fn illegal_paths_are_refused(two: Two) {
    for path in ["", "n", "/n/", "//n", "/n//m", "/./n", "/n/..", "/n\0", "/n\u{1}"] {
        let made = two.a.create(path, Bytes::new(), CreateMode::Persistent).await;
        assert!(matches!(made, Err(CoordinationError::Refused(_))), "{path:?}: {made:?}");
        assert!(matches!(two.a.get(path).await, Err(CoordinationError::Refused(_))), "{path:?}");
        assert!(matches!(two.a.children(path).await, Err(CoordinationError::Refused(_))), "{path:?}");
        let multi = two.a.multi(vec![create_op("/first", ""), create_op(path, "")]).await;
        assert!(
            matches!(multi, Err(MultiError { index: 1, error: CoordinationError::Refused(_) })),
            "{path:?}: {multi:?}"
        );
    }
    assert_eq!(two.a.children("/").await, Ok(vec![]));
}

async fn an_oversized_request_is_refused_before_it_is_sent(two: Two) {
    create(&two.a, "/n", "").await;
    let fits = Bytes::from(vec![7; REQUEST_BYTES_MAX - 1000]);
    two.a.set("/n", fits.clone(), -1).await.expect("fits");
    assert_eq!(read(&two.a, "/n").await.map(|(data, _)| data.len()), Some(fits.len()));
    let refused = two.a.set("/n", vec![7; REQUEST_BYTES_MAX].into(), -1).await;
    assert!(matches!(refused, Err(CoordinationError::Refused(_))), "{refused:?}");
    let made = two.a.create("/m", vec![7; REQUEST_BYTES_MAX].into(), CreateMode::Persistent).await;
    assert!(matches!(made, Err(CoordinationError::Refused(_))), "{made:?}");
    let big = || Op::Set { path: "/n".into(), data: vec![7; REQUEST_BYTES_MAX / 2].into(), version: -1 };
    let multi = two.a.multi(vec![big(), big()]).await;
    assert!(matches!(multi, Err(MultiError { index: 0, error: CoordinationError::Refused(_) })), "{multi:?}");
    assert_eq!(read(&two.a, "/n").await.map(|(_, stat)| stat.version), Some(1), "the session still works");
}

async fn a_missing_node_reads_as_none_and_its_children_as_no_node(two: Two) {
    let no_node = || CoordinationError::NoNode("/n".into());
    assert_eq!(two.a.get("/n").await, Ok(None));
    assert_eq!(two.a.children("/n").await, Err(no_node()));
    assert_eq!(two.a.children_and_watch("/n").await.map(|_| ()), Err(no_node()));
    assert_eq!(two.a.set("/n", Bytes::new(), -1).await, Err(no_node()));
    assert_eq!(two.a.delete("/n", -1).await, Err(no_node()));
}

async fn a_set_raises_the_version_and_the_mzxid_alone(two: Two) {
    let created = create(&two.a, "/n", "0").await;
    let one = two.a.set("/n", bytes("1"), 0).await.expect("version 0 is right");
    assert_eq!((one.version, one.czxid), (1, created.czxid));
    assert!(one.mzxid > created.mzxid);
    let two_ = two.b.set("/n", bytes("2"), -1).await.expect("any version");
    assert_eq!(two_.version, 2);
    assert_eq!(read(&two.b, "/n").await, Some((bytes("2"), two_)));
    create(&two.a, "/n/child", "").await;
    assert_eq!(read(&two.a, "/n").await, Some((bytes("2"), two_)), "children do not change a node");
}

async fn a_wrong_version_changes_nothing(two: Two) {
    let stat = create(&two.a, "/n", "x").await;
    let bad = || CoordinationError::BadVersion("/n".into());
    assert_eq!(two.a.set("/n", bytes("y"), 1).await, Err(bad()));
    assert_eq!(two.a.delete("/n", 1).await, Err(bad()));
    assert_eq!(read(&two.a, "/n").await, Some((bytes("x"), stat)));
    two.a.delete("/n", 0).await.expect("the right version");
    assert!(!exists(&two.a, "/n").await);
}

async fn a_node_with_children_cannot_be_deleted(two: Two) {
    create(&two.a, "/n", "").await;
    create(&two.a, "/n/m", "").await;
    // A neighbour whose name begins alike is no child.
    create(&two.a, "/n0", "").await;
    assert_eq!(two.a.delete("/n", -1).await, Err(CoordinationError::NotEmpty("/n".into())));
    two.a.delete("/n/m", -1).await.expect("a leaf");
    two.a.delete("/n", -1).await.expect("now a leaf");
    assert_eq!(two.b.children("/").await, Ok(vec!["n0".into()]));
}

async fn a_deleted_node_starts_again_at_version_0_with_a_larger_czxid(two: Two) {
    let first = create(&two.a, "/n", "").await;
    two.a.set("/n", bytes("x"), -1).await.expect("set");
    two.a.delete("/n", 1).await.expect("deleted");
    let second = create(&two.a, "/n", "").await;
    assert_eq!(second.version, 0);
    assert!(second.czxid > first.czxid);
}

async fn children_are_sorted_names(two: Two) {
    ensure_paths(two.a.as_ref(), &["/n/c/deep", "/n/a", "/n/b!", "/n/b", "/n/b/x", "/n/b0"]).await.expect("made");
    assert_eq!(two.b.children("/n").await, Ok(["a", "b", "b!", "b0", "c"].map(String::from).to_vec()));
    assert_eq!(two.b.children("/n/a").await, Ok(vec![]));
    assert_eq!(two.b.children("/").await, Ok(vec!["n".into()]));
}

async fn sequences_rise_per_parent_and_are_never_given_twice(two: Two) {
    create(&two.a, "/s", "").await;
    create(&two.a, "/t", "").await;
    let next = async |store: &SharedCoordination, path: &str| {
        store.create(path, Bytes::new(), CreateMode::PersistentSequential).await.expect(path).0
    };
    assert_eq!(next(&two.a, "/s/x_").await, "/s/x_0000000000");
    assert_eq!(next(&two.b, "/s/y_").await, "/s/y_0000000001");
    two.a.delete("/s/y_0000000001", -1).await.expect("deleted");
    assert_eq!(next(&two.a, "/s/x_").await, "/s/x_0000000002", "a deletion gives no number back");
    create(&two.a, "/s/plain", "").await;
    assert_eq!(next(&two.a, "/s/").await, "/s/0000000004", "every created child counts");
    assert_eq!(next(&two.a, "/t/x_").await, "/t/x_0000000000");
    let sequential = Op::Create { path: "/t/z".into(), data: Bytes::new(), mode: CreateMode::PersistentSequential };
    let made = two.a.multi(vec![sequential.clone(), sequential]).await;
    let path = |number| OpResult::Created(format!("/t/z{number:010}"));
    assert_eq!(made, Ok(vec![path(1), path(2)]));
    assert!(exists(&two.b, "/t/z0000000002").await);
}

async fn an_ephemeral_belongs_to_its_session_and_has_no_children(two: Two) {
    let Session::Connected(id) = *two.a.session().borrow() else { panic!("connected") };
    let (_, stat) = two.a.create("/e", bytes("x"), CreateMode::Ephemeral).await.expect("created");
    assert_eq!(stat.ephemeral_owner, id);
    assert_ne!(id, 0);
    assert_eq!(read(&two.b, "/e").await, Some((bytes("x"), stat)));
    let Session::Connected(other) = *two.b.session().borrow() else { panic!("connected") };
    assert_ne!(id, other);
    let child = two.a.create("/e/c", Bytes::new(), CreateMode::Persistent).await;
    assert_eq!(child, Err(CoordinationError::NoChildrenForEphemerals("/e/c".into())));
    two.b.set("/e", bytes("y"), 0).await.expect("others may write it");
    two.b.delete("/e", 1).await.expect("and delete it");
}

async fn closing_a_session_removes_its_ephemerals_alone(two: Two) {
    create(&two.a, "/n", "").await;
    for path in ["/e", "/n/e"] {
        two.a.create(path, Bytes::new(), CreateMode::Ephemeral).await.expect(path);
    }
    two.b.create("/f", Bytes::new(), CreateMode::Ephemeral).await.expect("created");
    two.a.close().await;
    assert_eq!(two.b.children("/").await, Ok(vec!["f".into(), "n".into()]));
    assert_eq!(two.b.children("/n").await, Ok(vec![]));
    two.b.create("/e", Bytes::new(), CreateMode::Ephemeral).await.expect("free again");
    two.b.close().await;
}

async fn a_multi_applies_in_order_and_sees_itself(two: Two) {
    let ops = vec![
        create_op("/n", "0"),
        create_op("/n/m", ""),
        set_op("/n", "1", 0),
        Op::Check { path: "/n".into(), version: 1 },
        Op::Delete { path: "/n/m".into(), version: 0 },
    ];
    let results = two.a.multi(ops).await.expect("applied");
    let (_, stat) = read(&two.b, "/n").await.expect("there");
    assert_eq!(stat.version, 1);
    assert_eq!(stat.czxid, stat.mzxid, "one transaction");
    let expected = [
        OpResult::Created("/n".into()),
        OpResult::Created("/n/m".into()),
        OpResult::Set(stat),
        OpResult::Checked,
        OpResult::Deleted,
    ];
    assert_eq!(results, expected);
    assert!(!exists(&two.a, "/n/m").await);
}

async fn a_refused_multi_names_the_operation_and_changes_nothing(two: Two) {
    let stat = create(&two.a, "/n", "x").await;
    let cases: [(Op, CoordinationError); 5] = [
        (create_op("/n", ""), CoordinationError::NodeExists("/n".into())),
        (create_op("/no/child", ""), CoordinationError::NoNode("/no/child".into())),
        (set_op("/n", "z", 0), CoordinationError::BadVersion("/n".into())),
        (Op::Delete { path: "/missing".into(), version: -1 }, CoordinationError::NoNode("/missing".into())),
        (Op::Check { path: "/n".into(), version: 7 }, CoordinationError::BadVersion("/n".into())),
    ];
    for (op, error) in cases {
        let sequential = Op::Create { path: "/s".into(), data: Bytes::new(), mode: CreateMode::PersistentSequential };
        let ops = vec![set_op("/n", "y", 0), create_op("/new", ""), sequential, op, create_op("/never", "")];
        assert_eq!(two.a.multi(ops).await, Err(MultiError { index: 3, error }));
        assert_eq!(read(&two.a, "/n").await, Some((bytes("x"), stat)));
        assert_eq!(two.a.children("/").await, Ok(vec!["n".into()]));
    }
}

async fn an_empty_multi_succeeds(two: Two) {
    assert_eq!(two.a.multi(vec![]).await, Ok(vec![]));
    assert_eq!(two.a.multi_all(vec![]).await, vec![]);
    assert_eq!(two.a.multi_all(vec![vec![], vec![]]).await, vec![Ok(vec![]), Ok(vec![])]);
}

async fn a_check_guards_a_multi(two: Two) {
    create(&two.a, "/guard", "").await;
    let guarded = |path: &str| vec![Op::Check { path: "/guard".into(), version: 0 }, create_op(path, "")];
    two.a.multi(guarded("/x")).await.expect("the guard holds");
    two.b.set("/guard", Bytes::new(), 0).await.expect("fenced");
    let late = two.a.multi(guarded("/y")).await;
    assert_eq!(late, Err(MultiError { index: 0, error: CoordinationError::BadVersion("/guard".into()) }));
    assert!(!exists(&two.a, "/y").await);
    two.b.delete("/guard", 1).await.expect("deleted");
    let gone = two.a.multi(vec![Op::Check { path: "/guard".into(), version: -1 }]).await;
    assert_eq!(gone, Err(MultiError { index: 0, error: CoordinationError::NoNode("/guard".into()) }));
}

async fn an_ephemeral_registered_by_multi_has_its_czxid_in_the_second_result(two: Two) {
    let create = Op::Create { path: "/e".into(), data: Bytes::new(), mode: CreateMode::Ephemeral };
    let results = two.a.multi(vec![create, set_op("/e", "x", 0)]).await.expect("applied");
    let [OpResult::Created(path), OpResult::Set(stat)] = &results[..] else { panic!("{results:?}") };
    assert_eq!((path.as_str(), stat.version), ("/e", 1));
    assert_eq!(read(&two.b, "/e").await, Some((bytes("x"), *stat)));
    let Session::Connected(id) = *two.a.session().borrow() else { panic!("connected") };
    assert_eq!(stat.ephemeral_owner, id);
    assert!(stat.czxid > 0);
}

async fn many_multis_answer_in_order_each_for_itself(two: Two) {
    let batches = (0..200).map(|at| match at % 10 {
        0 => vec![create_op(&format!("/n{at:03}"), ""), create_op("/no/child", "")],
        _ => vec![create_op(&format!("/n{at:03}"), ""), create_op(&format!("/n{at:03}/m"), "")],
    });
    let results = two.a.multi_all(batches.collect()).await;
    assert_eq!(results.len(), 200);
    for (at, result) in results.iter().enumerate() {
        match at % 10 {
            0 => assert_eq!(result.as_ref().map_err(|refused| refused.index), Err(1), "{at}"),
            _ => assert_eq!(result.as_ref().map(Vec::len), Ok(2), "{at}: {result:?}"),
        }
    }
    assert_eq!(two.b.children("/").await.map(|names| names.len()), Ok(180));
}

async fn a_data_watch_fires_on_set_after_the_change_is_readable(two: Two) {
    create(&two.a, "/n", "0").await;
    for round in 1..20 {
        let (found, changed) = two.b.get_and_watch("/n").await.expect("read");
        assert_eq!(found.map(|(_, stat)| stat.version), Some(round - 1));
        let ((), set) = tokio::join!(fires(changed), two.a.set("/n", bytes("x"), round - 1));
        assert_eq!(set.expect("set").version, round);
        assert_eq!(read(&two.b, "/n").await.map(|(_, stat)| stat.version), Some(round));
    }
}

async fn a_data_watch_on_a_missing_node_fires_on_creation(two: Two) {
    let (found, changed) = two.a.get_and_watch("/n").await.expect("read");
    assert_eq!(found, None);
    create(&two.b, "/n", "x").await;
    fires(changed).await;
    assert!(exists(&two.a, "/n").await);
}

async fn a_data_watch_fires_on_deletion(two: Two) {
    create(&two.a, "/n", "x").await;
    let (_, theirs) = two.b.get_and_watch("/n").await.expect("read");
    let (_, mine) = two.a.get_and_watch("/n").await.expect("read");
    two.a.delete("/n", -1).await.expect("deleted");
    fires(theirs).await;
    fires(mine).await;
    assert!(!exists(&two.b, "/n").await);
}

async fn a_data_watch_ignores_children(two: Two) {
    create(&two.a, "/n", "x").await;
    let (_, mut changed) = two.b.get_and_watch("/n").await.expect("read");
    create(&two.a, "/n/m", "").await;
    two.a.delete("/n/m", -1).await.expect("deleted");
    create(&two.a, "/nn", "").await;
    stays_silent(&mut changed).await;
    two.a.set("/n", Bytes::new(), -1).await.expect("set");
    fires(changed).await;
}

async fn a_child_watch_fires_on_creation_and_deletion_of_a_child(two: Two) {
    create(&two.a, "/n", "").await;
    let (children, changed) = two.b.children_and_watch("/n").await.expect("read");
    assert_eq!(children, Vec::<String>::new());
    create(&two.a, "/n/m", "").await;
    fires(changed).await;
    let (children, changed) = two.b.children_and_watch("/n").await.expect("read");
    assert_eq!(children, ["m"]);
    two.a.delete("/n/m", -1).await.expect("deleted");
    fires(changed).await;
    let (_, root) = two.b.children_and_watch("/").await.expect("read");
    create(&two.a, "/m", "").await;
    fires(root).await;
}

async fn a_child_watch_ignores_data_and_grandchildren(two: Two) {
    ensure_path(two.a.as_ref(), "/n/m").await.expect("made");
    let (_, mut changed) = two.b.children_and_watch("/n").await.expect("read");
    two.a.set("/n", bytes("x"), -1).await.expect("set");
    two.a.set("/n/m", bytes("x"), -1).await.expect("set");
    create(&two.a, "/n/m/deep", "").await;
    create(&two.a, "/other", "").await;
    stays_silent(&mut changed).await;
    create(&two.a, "/n/k", "").await;
    fires(changed).await;
}

async fn a_child_watch_fires_on_deletion_of_its_node(two: Two) {
    create(&two.a, "/n", "").await;
    let (_, changed) = two.b.children_and_watch("/n").await.expect("read");
    two.a.delete("/n", -1).await.expect("deleted");
    fires(changed).await;
}

async fn a_watch_fires_once_and_is_armed_again_by_reading(two: Two) {
    create(&two.a, "/n", "").await;
    let (_, first) = two.b.get_and_watch("/n").await.expect("read");
    let (_, same) = two.b.get_and_watch("/n").await.expect("read");
    two.a.multi(vec![set_op("/n", "1", 0), set_op("/n", "2", 1)]).await.expect("applied");
    fires(first).await;
    fires(same).await;
    let (found, mut again) = two.b.get_and_watch("/n").await.expect("read");
    assert_eq!(found.map(|(data, _)| data), Some(bytes("2")));
    stays_silent(&mut again).await;
    two.a.set("/n", bytes("3"), -1).await.expect("set");
    fires(again).await;
}

async fn watches_of_other_sessions_fire_when_an_ephemeral_goes(two: Two) {
    two.a.create("/e", Bytes::new(), CreateMode::Ephemeral).await.expect("created");
    let (_, data) = two.b.get_and_watch("/e").await.expect("read");
    let (children, list) = two.b.children_and_watch("/").await.expect("read");
    assert_eq!(children, ["e"]);
    two.a.close().await;
    fires(data).await;
    fires(list).await;
    assert_eq!(two.b.children("/").await, Ok(vec![]));
}

async fn a_refused_write_fires_no_watch(two: Two) {
    create(&two.a, "/n", "").await;
    let (_, mut data) = two.b.get_and_watch("/n").await.expect("read");
    let (_, mut list) = two.b.children_and_watch("/n").await.expect("read");
    let refused = two.a.multi(vec![set_op("/n", "x", 0), create_op("/n/m", ""), create_op("/n", "")]).await;
    assert!(refused.is_err());
    two.a.set("/n", bytes("x"), 9).await.expect_err("wrong version");
    stays_silent(&mut data).await;
    stays_silent(&mut list).await;
}

async fn closing_a_session_resolves_its_watches_and_refuses_later_calls(two: Two) {
    create(&two.b, "/n", "").await;
    let (_, data) = two.a.get_and_watch("/n").await.expect("read");
    let (_, list) = two.a.children_and_watch("/n").await.expect("read");
    let mut session = two.a.session();
    two.a.close().await;
    // Resolved either way: by a message or by the end of the sender.
    tokio::time::timeout(Duration::from_secs(10), data).await.expect("resolved").ok();
    tokio::time::timeout(Duration::from_secs(10), list).await.expect("resolved").ok();
    let closed = tokio::time::timeout(Duration::from_secs(10), session.wait_for(|now| *now == Session::Closed));
    assert_eq!(*closed.await.expect("published").expect("published"), Session::Closed);
    assert!(matches!(two.a.get("/n").await, Err(CoordinationError::Refused(_))));
    let refused = two.a.multi(vec![set_op("/n", "x", 0)]).await;
    assert!(matches!(refused, Err(MultiError { index: 0, error: CoordinationError::Refused(_) })), "{refused:?}");
    two.a.close().await;
    assert!(exists(&two.b, "/n").await);
}

async fn ensure_paths_makes_every_parent_and_leaves_what_is_there(two: Two) {
    create(&two.a, "/n", "kept").await;
    ensure_paths(two.b.as_ref(), &["/n/m", "/p/q/r", "/p/q/s", "/"]).await.expect("made");
    ensure_path(two.a.as_ref(), "/p/q/r").await.expect("already there");
    assert_eq!(read(&two.a, "/n").await.map(|(data, _)| data), Some(bytes("kept")));
    assert_eq!(two.a.children("/p/q").await, Ok(vec!["r".into(), "s".into()]));
    assert_eq!(read(&two.a, "/p/q/r").await.map(|(_, stat)| stat.ephemeral_owner), Some(0));
}

async fn concurrent_writers_of_one_version_have_one_winner(two: Two) {
    create(&two.a, "/n", "").await;
    for version in 0..10 {
        let writers = (0..40).map(|at| {
            let store = if at % 2 == 0 { &two.a } else { &two.b };
            store.multi(vec![Op::Check { path: "/n".into(), version }, set_op("/n", "x", version)])
        });
        let results = futures_util::future::join_all(writers).await;
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "version {version}");
    }
}
