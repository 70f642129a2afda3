//! The authorizer beside a model that searches all ACLs, and on a tree that others write to.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::rules::java_address;
use super::*;
use crate::clock::testing::ManualClock;
use crate::coordination::embedded::EmbeddedCoordination;
use crate::coordination::embedded::testing::TreeDir;
use crate::types::acl::{PatternType, PermissionType};

/// A stream of numbers from a seed.
struct Draw(u64);

impl Draw {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}

fn binding(
    kind: PatternType,
    name: &str,
    principal: &str,
    operation: Operation,
    permission: PermissionType,
) -> AclBinding {
    AclBinding {
        pattern: ResourcePattern { resource_type: ResourceType::Topic, pattern_type: kind, name: name.into() },
        entry: AccessControlEntry { principal: principal.into(), host: "*".into(), operation, permission },
    }
}

fn snapshot(bindings: &BTreeSet<AclBinding>) -> Snapshot {
    let mut of: BTreeMap<ResourcePattern, Acls> = BTreeMap::new();
    for binding in bindings {
        of.entry(binding.pattern.clone()).or_default().insert(binding.entry.clone());
    }
    Snapshot::default().with(of.into_iter().map(|(pattern, acls)| (pattern, Arc::new(acls))))
}

/// Kafka's rules as one reads them: every ACL is looked at, one after the other.
struct Model<'a> {
    bindings: &'a BTreeSet<AclBinding>,
    principal: &'a str,
    address: IpAddr,
}

impl Model<'_> {
    fn matches(&self, entry: &AccessControlEntry, operation: Operation, permission: PermissionType) -> bool {
        let host = java_address(self.address);
        entry.permission == permission
            && (*entry.principal == *self.principal || *entry.principal == *"User:*")
            && (*entry.host == *host || *entry.host == *"*")
            && (entry.operation == operation || entry.operation == Operation::All)
    }

    fn about(&self, resource_type: ResourceType, name: &str) -> Vec<&AccessControlEntry> {
        let is_about = |pattern: &ResourcePattern| match pattern.pattern_type {
            PatternType::Prefixed => name.starts_with(&*pattern.name),
            _ => *pattern.name == *name || *pattern.name == *"*",
        };
        let about =
            self.bindings.iter().filter(|it| it.pattern.resource_type == resource_type && is_about(&it.pattern));
        about.map(|it| &it.entry).collect()
    }

    fn decide(&self, operation: Operation, resource_type: ResourceType, name: &str) -> Decision {
        use Operation::*;
        let about = self.about(resource_type, name);
        if about.is_empty() {
            return Decision::NoAcls;
        }
        if about.iter().any(|entry| self.matches(entry, operation, PermissionType::Deny)) {
            return Decision::Denied;
        }
        let enough = match operation {
            Describe => vec![Describe, Read, Write, Delete, Alter],
            DescribeConfigs => vec![DescribeConfigs, AlterConfigs],
            other => vec![other],
        };
        let allows =
            |entry: &&&AccessControlEntry| enough.iter().any(|it| self.matches(entry, *it, PermissionType::Allow));
        if about.iter().find(allows).is_some() { Decision::Allowed } else { Decision::Denied }
    }

    /// Source: Kafka 3.9 `Authorizer.authorizeByResourceType`, whose default looks at every ACL as this does.
    fn decide_by_type(&self, operation: Operation, resource_type: ResourceType, by_default: bool) -> bool {
        let named = |permission, kind| -> Vec<&str> {
            let of_kind =
                move |it: &&AclBinding| it.pattern.resource_type == resource_type && it.pattern.pattern_type == kind;
            let matching = self.bindings.iter().filter(of_kind);
            matching.filter(|it| self.matches(&it.entry, operation, permission)).map(|it| &*it.pattern.name).collect()
        };
        let denied = named(PermissionType::Deny, PatternType::Literal);
        let denied_prefixes = named(PermissionType::Deny, PatternType::Prefixed);
        if denied.contains(&"*") {
            return false;
        }
        if by_default {
            return true;
        }
        let dominated = |name: &str| denied_prefixes.iter().any(|prefix| name.starts_with(prefix));
        named(PermissionType::Allow, PatternType::Prefixed).into_iter().any(|name| !dominated(name))
            || named(PermissionType::Allow, PatternType::Literal)
                .into_iter()
                .any(|name| name == "*" || !denied.contains(&name) && !dominated(name))
    }
}

const NAMES: [&str; 9] = ["*", "a", "ab", "abc", "abd", "b", "ba", "é", "éa"];
const PRINCIPALS: [&str; 4] = ["User:*", "User:a", "User:b", "Group:a"];
const HOSTS: [&str; 4] = ["*", "10.0.0.1", "0:0:0:0:0:0:0:1", "::1"];
const TYPES: [ResourceType; 2] = [ResourceType::Topic, ResourceType::Group];

fn drawn(draw: &mut Draw) -> AclBinding {
    use Operation::*;
    let operations = [All, Read, Write, Alter, Delete, Describe, DescribeConfigs, AlterConfigs];
    AclBinding {
        pattern: ResourcePattern {
            resource_type: draw.of(&TYPES),
            pattern_type: draw.of(&[PatternType::Literal, PatternType::Prefixed]),
            name: draw.of(&NAMES).into(),
        },
        entry: AccessControlEntry {
            principal: draw.of(&PRINCIPALS).into(),
            host: draw.of(&HOSTS).into(),
            operation: draw.of(&operations),
            permission: draw.of(&[PermissionType::Allow, PermissionType::Allow, PermissionType::Deny]),
        },
    }
}

/// CVE-2024-27309 among others: whatever the ACLs, and in whatever steps they came, the decisions are the model's.
#[test]
fn decisions_are_those_of_a_model_that_looks_at_every_acl() {
    for seed in 0..150 {
        let mut draw = Draw(seed);
        let mut bindings = BTreeSet::new();
        let mut in_steps = Snapshot::default();
        for _ in 0..draw.below(14) {
            let one = drawn(&mut draw);
            let pattern = one.pattern.clone();
            if draw.below(4) == 0 {
                bindings.retain(|it: &AclBinding| it.pattern != pattern);
            } else {
                bindings.insert(one);
            }
            let acls: Acls = bindings.iter().filter(|it| it.pattern == pattern).map(|it| it.entry.clone()).collect();
            in_steps = in_steps.with([(pattern, Arc::new(acls))]);
        }
        let at_once = snapshot(&bindings);
        for principal in ["User:a", "User:b", "User:c", "Group:a", "User:*"] {
            let of = Principal::parse(principal).expect("a principal");
            for host in ["10.0.0.1", "10.0.0.2", "::1"] {
                let address: IpAddr = host.parse().expect("an address");
                let model = Model { bindings: &bindings, principal, address };
                for (operation, resource_type) in Operation::ALL[3..12].iter().flat_map(|it| TYPES.map(|of| (*it, of)))
                {
                    for name in NAMES.into_iter().chain(["abcd", "c", "z"]) {
                        let expected = model.decide(operation, resource_type, name);
                        for snapshot in [&in_steps, &at_once] {
                            let found = snapshot.decide(&of, address, operation, resource_type, name);
                            assert_eq!(found, expected, "{seed}: {principal} {operation} {name} by {bindings:?}");
                        }
                    }
                    for by_default in [false, true] {
                        let expected = model.decide_by_type(operation, resource_type, by_default);
                        let found = in_steps.decide_by_type(&of, address, operation, resource_type, by_default);
                        assert_eq!(found, expected, "{seed}: {principal} {operation} of a type by {bindings:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_denial_implies_nothing_and_an_allowance_does() {
    use Operation::*;
    let one = |operation, permission| {
        let bindings = BTreeSet::from([
            binding(PatternType::Literal, "t", "User:a", operation, permission),
            binding(PatternType::Literal, "t", "User:a", Create, PermissionType::Allow),
        ]);
        snapshot(&bindings)
    };
    let a = Principal::user("a");
    let decide = |snapshot: &Snapshot, operation| {
        snapshot.decide(&a, [10, 0, 0, 1].into(), operation, ResourceType::Topic, "t") == Decision::Allowed
    };
    for implying in [Read, Write, Delete, Alter] {
        assert!(decide(&one(implying, PermissionType::Allow), Describe), "{implying}");
    }
    assert!(decide(&one(AlterConfigs, PermissionType::Allow), DescribeConfigs));
    assert!(!decide(&one(AlterConfigs, PermissionType::Allow), Describe));
    let all_but_read = BTreeSet::from([
        binding(PatternType::Literal, "t", "User:a", All, PermissionType::Allow),
        binding(PatternType::Literal, "t", "User:a", Read, PermissionType::Deny),
    ]);
    let snapshot = snapshot(&all_but_read);
    assert!(!decide(&snapshot, Read) && decide(&snapshot, Describe) && decide(&snapshot, Write));
}

struct Room {
    store: Arc<EmbeddedCoordination>,
    acls: AclStore,
}

impl Room {
    fn new() -> Self {
        let store = TreeDir::new().store();
        let acls = AclStore::new(store.clone(), Arc::new(ManualClock::new(1_000_000, 1)));
        Self { store, acls }
    }

    async fn start(&self, settings: AuthorizerSettings) -> Arc<AclAuthorizer> {
        AclAuthorizer::start(settings, self.acls.clone()).await.expect("the tree can be read")
    }
}

fn may(authorizer: &AclAuthorizer, principal: &str, operation: Operation, name: &str) -> bool {
    let principal = Principal::parse(principal).expect("a principal");
    let requester = Requester { principal: &principal, address: [127, 0, 0, 1].into(), api: &"Produce" };
    authorizer.authorize(&requester, &Action::new(operation, ResourceType::Topic, name))
}

async fn eventually(what: impl Fn() -> bool) {
    tokio::time::timeout(Duration::from_secs(30), async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("in time");
}

#[tokio::test]
async fn super_users_may_everything_and_others_what_nobody_speaks_of_only_if_told_so() {
    let room = Room::new();
    let super_users = vec![Principal::user("root")];
    let strict = room.start(AuthorizerSettings { super_users, ..AuthorizerSettings::default() }).await;
    assert!(may(&strict, "User:root", Operation::Alter, "t") && !may(&strict, "User:a", Operation::Read, "t"));
    let lax = AuthorizerSettings { allow_everyone_if_no_acl_found: true, ..AuthorizerSettings::default() };
    let lax = room.start(lax).await;
    let of_t = binding(PatternType::Literal, "t", "User:a", Operation::Read, PermissionType::Allow);
    assert_eq!(lax.create(&[of_t]).await, [Ok(())]);
    assert!(may(&lax, "User:b", Operation::Alter, "u"), "no ACL is about it");
    assert!(!may(&lax, "User:b", Operation::Read, "t") && may(&lax, "User:a", Operation::Read, "t"));
    eventually(|| may(&strict, "User:a", Operation::Read, "t")).await;
}

#[tokio::test]
async fn what_others_write_holds_a_moment_later_and_what_is_written_here_at_once() {
    let room = Room::new();
    let read = binding(PatternType::Prefixed, "a", "User:a", Operation::Read, PermissionType::Allow);
    let deny = binding(PatternType::Literal, "abc", "User:*", Operation::All, PermissionType::Deny);
    let one = room.start(AuthorizerSettings::default()).await;
    let other = room.start(AuthorizerSettings::default()).await;
    assert_eq!(one.create(&[read.clone(), deny.clone()]).await, [Ok(()), Ok(())]);
    assert!(may(&one, "User:a", Operation::Read, "ab") && !may(&one, "User:a", Operation::Read, "abc"));
    eventually(|| may(&other, "User:a", Operation::Read, "ab") && !may(&other, "User:a", Operation::Read, "abc")).await;
    // As `kafka-acls` writes them, and as a broker that is started anew reads them.
    let third = room.start(AuthorizerSettings::default()).await;
    assert!(may(&third, "User:a", Operation::Read, "ab") && !may(&third, "User:a", Operation::Read, "abc"));
    let everything = AclFilter {
        resource_type: ResourceType::Any,
        name: None,
        pattern_type: PatternType::Any,
        principal: None,
        host: None,
        operation: Operation::Any,
        permission: PermissionType::Any,
    };
    assert_eq!(third.acls(&everything).len(), 2);
    let of_a = AclFilter { principal: Some("User:a".into()), ..everything.clone() };
    let deleted = other.delete(&[of_a, everything.clone()]).await;
    assert_eq!(deleted, [vec![(read, None)], vec![(deny, None)]], "what two filters match is the first one's");
    eventually(|| third.acls(&everything).is_empty() && one.acls(&everything).is_empty()).await;
    assert!(!may(&one, "User:a", Operation::Read, "ab"));
}

#[tokio::test]
async fn acls_that_cannot_be_read_end_the_start_and_change_nothing_later() {
    use crate::coordination::{Coordination, CreateMode};

    let room = Room::new();
    let authorizer = room.start(AuthorizerSettings::default()).await;
    let read = binding(PatternType::Literal, "t", "User:a", Operation::Read, PermissionType::Allow);
    authorizer.create(&[read]).await;
    room.store.set("/kafka-acl/Topic/t", "rubbish".into(), -1).await.unwrap();
    let note = CreateMode::PersistentSequential;
    room.store.create("/kafka-acl-changes/acl_changes_", "TOPIC:t".into(), note).await.unwrap();
    let after = binding(PatternType::Literal, "u", "User:a", Operation::Read, PermissionType::Allow);
    let other = room.acls.clone();
    let change = |acls: &Acls| acls.iter().cloned().chain([after.entry.clone()]).collect();
    other.update(&after.pattern, change).await.unwrap();
    eventually(|| may(&authorizer, "User:a", Operation::Read, "u")).await;
    assert!(may(&authorizer, "User:a", Operation::Read, "t"), "as they were");
    let refused = AclAuthorizer::start(AuthorizerSettings::default(), room.acls.clone()).await;
    assert!(refused.is_err_and(|error| error.to_string().contains("/kafka-acl/Topic/t")));
}

/// Kind, name and principal of the ACL of a number.
type Shape = fn(usize) -> (PatternType, String, String);

/// 10,000 ACLs in several shapes: what one decision costs. Measures, so it is run by itself and optimised:
/// `cargo test --release --lib a_decision_on_ten_thousand_acls -- --ignored --nocapture`.
#[ignore = "it measures"]
#[test]
fn a_decision_on_ten_thousand_acls_takes_two_microseconds_at_most() {
    let shapes: [(&str, Shape); 4] = [
        ("a topic each", |n| (PatternType::Literal, format!("topic-{n}"), "User:a".into())),
        ("a prefix each", |n| (PatternType::Prefixed, format!("topic-{n:05}-"), "User:a".into())),
        ("prefixes of prefixes", |n| (PatternType::Prefixed, format!("{:01$}", 0, n % 100 + 1), format!("User:{n}"))),
        ("a principal each", |n| (PatternType::Literal, "topic-7".into(), format!("User:{n}"))),
    ];
    let a = Principal::user("a");
    for (shape, make) in shapes {
        let time = |count: usize| {
            let all = (0..count).map(|n| {
                let (kind, name, principal) = make(n);
                binding(kind, &name, &principal, Operation::Read, PermissionType::Allow)
            });
            let snapshot = snapshot(&all.collect());
            let best = (0..5).map(|_| {
                let begun = Instant::now();
                for _ in 0..2_000 {
                    let name = std::hint::black_box("topic-7");
                    let decided = snapshot.decide(&a, [10, 0, 0, 1].into(), Operation::Read, ResourceType::Topic, name);
                    std::hint::black_box(decided);
                }
                begun.elapsed() / 2_000
            });
            best.min().expect("five")
        };
        let (few, many) = (time(100), time(10_000));
        eprintln!("{shape}: {few:?} with 100 ACLs, {many:?} with 10,000");
        assert!(many <= Duration::from_micros(2), "{shape}: {many:?}");
    }
}
