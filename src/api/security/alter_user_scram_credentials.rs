//! AlterUserScramCredentials (51), version 0: give users SCRAM passwords, and take them away.
//!
//! Behaviour
//! - Only the controller serves it: NOT_CONTROLLER (41) for each user from others. Needs ALTER of the cluster:
//!   CLUSTER_AUTHORIZATION_FAILED (31) for each.
//! - Answers once for each user; what is wrong with one of its changes leaves all of them undone. An empty name, or
//!   iterations outside 4096 to 16384: UNACCEPTABLE_CREDENTIAL (93). An unknown mechanism: UNSUPPORTED_SASL_MECHANISM
//!   (33). The same user and mechanism twice: DUPLICATE_RESOURCE (92). A deletion of what is not there:
//!   RESOURCE_NOT_FOUND (91).
//! - The client salts the password, and this never sees it. Stored in `/config/users` with the note to every broker, in
//!   one write for each user; on this one it holds when the answer leaves.
//!
//! Versions: 0 KIP-554, flexible. Ignored: nothing.
//! Source: Kafka 3.9 `KafkaApis.handleAlterUserScramCredentialsRequest`, `ZkAdminManager.alterUserScramCredentials`.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::alter_user_scram_credentials_request::{
    ScramCredentialDeletion, ScramCredentialUpsertion,
};
use kafka_protocol::messages::alter_user_scram_credentials_response::AlterUserScramCredentialsResult;
use kafka_protocol::messages::{AlterUserScramCredentialsRequest, AlterUserScramCredentialsResponse};

use crate::api::authorization::Authorization;
use crate::api::context::RequestContext;
use crate::api::handler::{Handler, Reply};
use crate::api::security::describe_user_scram_credentials::MECHANISMS;
use crate::api::shared::refusal::{Refusal, wire_outcome};
use crate::api::shared::stored;
use crate::api::shared::strings::text;
use crate::cluster::znodes::config::{Entity, Overrides};
use crate::security::sasl::credential::{ITERATIONS_MAX, ITERATIONS_MIN, ScramCredential, ScramHash};
use crate::types::acl::{Operation, ResourceType};

pub(crate) struct AlterUserScramCredentials;

impl Handler for AlterUserScramCredentials {
    type Req = AlterUserScramCredentialsRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=0;
    const AUTHORIZATION: Authorization = Authorization::Of(&[(Operation::Alter, ResourceType::Cluster)]);

    async fn handle(
        ctx: RequestContext,
        req: AlterUserScramCredentialsRequest,
    ) -> Reply<AlterUserScramCredentialsResponse> {
        let refused = if !ctx.handles.controller.is_active() {
            let why = "This is not the correct controller for this cluster.";
            Some(Refusal::new(ResponseError::NotController, why))
        } else if !ctx.may_on_cluster(Operation::Alter) {
            let error = ResponseError::ClusterAuthorizationFailed;
            Some(Refusal::new(error, error.to_string()))
        } else {
            None
        };
        let mut results = Vec::new();
        for (user, planned) in plan(&req) {
            let result = match planned {
                _ if refused.is_some() => refused.clone().map_or(Ok(()), Err),
                Ok(changes) => {
                    stored::change(&ctx.handles, &Entity::user(user), |settings| {
                        changed(settings.clone(), &changes).map(Some)
                    })
                    .await
                }
                Err(refusal) => Err(refusal),
            };
            let (code, message) = wire_outcome(result);
            let result = AlterUserScramCredentialsResult::default().with_user(text(user));
            results.push(result.with_error_code(code).with_error_message(message));
        }
        Reply::Now(AlterUserScramCredentialsResponse::default().with_results(results))
    }
}

/// What is to become of one user's mechanisms. Deletions come first, as in Kafka.
#[derive(Debug, Default, PartialEq, Eq)]
struct Changes {
    deleted: BTreeSet<&'static str>,
    /// As they are stored.
    put: BTreeMap<&'static str, String>,
}

/// The changes of every user, or what is wrong with them.
fn plan(req: &AlterUserScramCredentialsRequest) -> BTreeMap<&str, Result<Changes, Refusal>> {
    let mut users: BTreeMap<&str, Result<Changes, Refusal>> = BTreeMap::new();
    // The last fault of an upsertion is told before that of a deletion, and any of them before a repetition.
    let mut faults = BTreeMap::new();
    for deletion in &req.deletions {
        if let Err(refusal) = check_deletion(deletion) {
            faults.insert(deletion.name.as_str(), refusal);
        }
    }
    for upsertion in &req.upsertions {
        if let Err(refusal) = check_upsertion(upsertion) {
            faults.insert(upsertion.name.as_str(), refusal);
        }
    }
    let mut add = |user, mechanism: Option<ScramHash>, change: &dyn Fn(ScramHash, &mut Changes) -> bool| {
        let planned = users.entry(user).or_insert_with(|| Ok(Changes::default()));
        if let (Ok(changes), Some(hash)) = (&mut *planned, mechanism)
            && !change(hash, changes)
        {
            let why = "A user credential cannot be altered twice in the same request";
            *planned = Err(Refusal::new(ResponseError::DuplicateResource, why));
        }
    };
    for deletion in &req.deletions {
        add(deletion.name.as_str(), hash(deletion.mechanism), &|hash, changes| {
            changes.deleted.insert(hash.mechanism())
        });
    }
    for upsertion in &req.upsertions {
        add(upsertion.name.as_str(), hash(upsertion.mechanism), &|hash, changes| {
            let (salt, salted) = (&upsertion.salt, &upsertion.salted_password);
            let credential = ScramCredential::of_salted(hash, salt, salted, upsertion.iterations);
            let name = hash.mechanism();
            changes.put.insert(name, credential.text()).is_none() && !changes.deleted.contains(name)
        });
    }
    for (user, refusal) in faults {
        users.insert(user, Err(refusal));
    }
    users
}

fn hash(mechanism: i8) -> Option<ScramHash> {
    MECHANISMS.into_iter().find(|(_, number)| *number == mechanism).map(|(hash, _)| hash)
}

fn check_deletion(deletion: &ScramCredentialDeletion) -> Result<(), Refusal> {
    check_user(&deletion.name, deletion.mechanism)
}

fn check_upsertion(upsertion: &ScramCredentialUpsertion) -> Result<(), Refusal> {
    check_user(&upsertion.name, upsertion.mechanism)?;
    let unacceptable = |why| Err(Refusal::new(ResponseError::UnacceptableCredential, why));
    match upsertion.iterations {
        too_many if too_many > ITERATIONS_MAX => unacceptable("Too many iterations"),
        too_few if too_few < ITERATIONS_MIN => unacceptable("Too few iterations"),
        _ => Ok(()),
    }
}

fn check_user(name: &str, mechanism: i8) -> Result<(), Refusal> {
    if name.is_empty() {
        return Err(Refusal::new(ResponseError::UnacceptableCredential, "Username must not be empty"));
    }
    match hash(mechanism) {
        Some(_) => Ok(()),
        None => Err(Refusal::new(ResponseError::UnsupportedSaslMechanism, "Unknown SCRAM mechanism")),
    }
}

fn changed(mut settings: Overrides, changes: &Changes) -> Result<Overrides, Refusal> {
    for mechanism in &changes.deleted {
        if settings.remove(*mechanism).is_none() {
            let why = "Attempt to delete a user credential that does not exist";
            return Err(Refusal::new(ResponseError::ResourceNotFound, why));
        }
    }
    settings.extend(changes.put.iter().map(|(mechanism, credential)| ((*mechanism).to_owned(), credential.clone())));
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delete(name: &str, mechanism: i8) -> ScramCredentialDeletion {
        ScramCredentialDeletion::default().with_name(text(name)).with_mechanism(mechanism)
    }

    fn put(name: &str, mechanism: i8, iterations: i32) -> ScramCredentialUpsertion {
        let upsertion = ScramCredentialUpsertion::default().with_name(text(name)).with_mechanism(mechanism);
        upsertion.with_iterations(iterations).with_salt(vec![1].into()).with_salted_password(vec![2].into())
    }

    fn request(
        deletions: Vec<ScramCredentialDeletion>,
        upsertions: Vec<ScramCredentialUpsertion>,
    ) -> AlterUserScramCredentialsRequest {
        AlterUserScramCredentialsRequest::default().with_deletions(deletions).with_upsertions(upsertions)
    }

    #[test]
    fn what_is_wrong_is_said_in_kafkas_words() {
        let request = request(
            vec![delete("", 1), delete("unknown", 9), delete("both", 1), delete("twice", 1), delete("twice", 1)],
            vec![
                put("few", 1, 4095),
                put("many", 2, 16_385),
                put("unknown2", 0, 1),
                put("both", 2, 4096),
                put("again", 1, 4096),
                put("again", 1, 4096),
                put("swapped", 1, 4096),
            ],
        );
        let planned = plan(&request);
        let fault = |user: &str| {
            let refusal = planned[user].as_ref().expect_err(user);
            (refusal.error.code(), refusal.message.clone().expect("a text"))
        };
        assert_eq!(fault(""), (93, "Username must not be empty".into()));
        assert_eq!(fault("unknown"), (33, "Unknown SCRAM mechanism".into()));
        assert_eq!(fault("unknown2"), (33, "Unknown SCRAM mechanism".into()));
        assert_eq!(fault("few"), (93, "Too few iterations".into()));
        assert_eq!(fault("many"), (93, "Too many iterations".into()));
        for user in ["twice", "again"] {
            assert_eq!(fault(user), (92, "A user credential cannot be altered twice in the same request".into()));
        }
        let both = planned["both"].as_ref().expect("a plan");
        assert_eq!((both.deleted.len(), both.put.len()), (1, 1));
        assert!(both.put["SCRAM-SHA-512"].ends_with(",iterations=4096"));
        let same = super::tests::request(vec![delete("u", 1)], vec![put("u", 1, 4096)]);
        assert_eq!(plan(&same)["u"].as_ref().expect_err("twice").error, ResponseError::DuplicateResource);
    }

    #[test]
    fn other_settings_of_a_user_stay() {
        let settings =
            || Overrides::from([("producer_byte_rate".into(), "1".into()), ("SCRAM-SHA-256".into(), "x".into())]);
        let request = request(vec![delete("u", 1)], vec![put("u", 2, 4096)]);
        let planned = plan(&request);
        let after = changed(settings(), planned["u"].as_ref().expect("a plan")).expect("legal");
        assert_eq!(after.keys().collect::<Vec<_>>(), ["SCRAM-SHA-512", "producer_byte_rate"]);
        let gone = changed(Overrides::new(), planned["u"].as_ref().expect("a plan")).expect_err("nothing to delete");
        assert_eq!(gone.error, ResponseError::ResourceNotFound);
    }
}
