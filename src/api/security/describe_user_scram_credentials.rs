//! DescribeUserScramCredentials (50), version 0: which users have SCRAM passwords, and with how many iterations.
//!
//! Behaviour
//! - Needs DESCRIBE of the cluster: CLUSTER_AUTHORIZATION_FAILED (31).
//! - Null or no name means every user that has one, in order of names.
//! - A user without one: RESOURCE_NOT_FOUND (91), an empty name too. The same name twice: DUPLICATE_RESOURCE (92),
//!   once.
//! - A credential that cannot be read, which only a tool can have written: UNKNOWN_SERVER_ERROR (−1) for its user.
//! - Read from `/config/users` at this moment, by whichever broker is asked. Keys and salts are in no answer.
//!
//! Versions: 0 KIP-554, flexible. Ignored: nothing.
//! Source: Kafka 3.9 `ZkAdminManager.describeUserScramCredentials`.

use std::collections::{BTreeSet, HashSet};
use std::ops::RangeInclusive;

use futures_util::stream::{self, StreamExt};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_user_scram_credentials_response::{
    CredentialInfo, DescribeUserScramCredentialsResult,
};
use kafka_protocol::messages::{DescribeUserScramCredentialsRequest, DescribeUserScramCredentialsResponse};
use kafka_protocol::protocol::StrBytes;

use crate::api::authorization::Authorization;
use crate::api::context::{Handles, RequestContext};
use crate::api::error_code;
use crate::api::handler::{Handler, Reply};
use crate::api::shared::repeated::repeated;
use crate::api::shared::strings::text;
use crate::cluster::znodes::config::{Entity, Overrides, desanitized};
use crate::security::sasl::credential::{ScramCredential, ScramHash};
use crate::types::acl::{Operation, ResourceType};
use crate::types::limits::COORDINATION_READS_IN_FLIGHT_MAX;

pub(crate) struct DescribeUserScramCredentials;

impl Handler for DescribeUserScramCredentials {
    type Req = DescribeUserScramCredentialsRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=0;
    const AUTHORIZATION: Authorization = Authorization::Of(&[(Operation::Describe, ResourceType::Cluster)]);

    async fn handle(
        ctx: RequestContext,
        req: DescribeUserScramCredentialsRequest,
    ) -> Reply<DescribeUserScramCredentialsResponse> {
        let response = DescribeUserScramCredentialsResponse::default();
        if !ctx.may_on_cluster(Operation::Describe) {
            let error = ResponseError::ClusterAuthorizationFailed;
            // Without their names, as in Kafka.
            let refused = req.users.iter().flatten().map(|_| failed(StrBytes::default(), error, error.to_string()));
            let refused = refused.collect();
            let response = response.with_error_code(error.code()).with_results(refused);
            return Reply::Now(response.with_error_message(Some(text(error.to_string()))));
        }
        let named: Vec<StrBytes> = req.users.into_iter().flatten().map(|user| user.name).collect();
        if !named.is_empty() {
            return Reply::Now(response.with_results(of_named(&ctx.handles, named).await));
        }
        Reply::Now(match ctx.handles.admin.user_names().await {
            Ok(paths) => {
                let names: BTreeSet<String> = paths.iter().filter_map(|path| desanitized(path)).collect();
                let names = names.into_iter().map(text).collect();
                let mut results = of_users(&ctx.handles, names).await;
                results.retain(|result| result.error_code != ResponseError::ResourceNotFound.code());
                response.with_results(results)
            }
            Err(error) => {
                let code = error_code::of_admin_error(&error).code();
                response.with_error_code(code).with_error_message(Some(text(error.to_string())))
            }
        })
    }
}

/// Of each of these once, in their order.
async fn of_named(handles: &Handles, names: Vec<StrBytes>) -> Vec<DescribeUserScramCredentialsResult> {
    let twice = repeated(names.iter().map(|name| name.as_str()));
    let twice: HashSet<String> = twice.into_iter().map(str::to_owned).collect();
    let mut seen = HashSet::new();
    let once: Vec<StrBytes> = names.into_iter().filter(|name| seen.insert(name.clone())).collect();
    let is_refused = |name: &&StrBytes| name.is_empty() || twice.contains(name.as_str());
    let wanted = once.iter().filter(|name| !is_refused(name)).cloned().collect();
    let mut found = of_users(handles, wanted).await.into_iter();
    let answer = |name: StrBytes| match is_refused(&&name) {
        false => found.next().unwrap_or_default(),
        true if name.is_empty() => failed(name, ResponseError::ResourceNotFound, "Username must not be empty".into()),
        true => {
            let why = format!("Cannot describe SCRAM credentials for the same user twice in a single request: {name}");
            failed(name, ResponseError::DuplicateResource, why)
        }
    };
    once.iter().cloned().map(answer).collect()
}

async fn of_users(handles: &Handles, names: Vec<StrBytes>) -> Vec<DescribeUserScramCredentialsResult> {
    let read = |name: StrBytes| async move {
        let entity = Entity::user(&name);
        let read = handles.admin.read_overrides(&entity).await;
        match read {
            Ok(existing) => described(name, &existing.overrides),
            Err(error) => failed(name, error_code::of_admin_error(&error), error.to_string()),
        }
    };
    stream::iter(names).map(read).buffered(COORDINATION_READS_IN_FLIGHT_MAX).collect().await
}

/// What the settings of a user say.
fn described(name: StrBytes, settings: &Overrides) -> DescribeUserScramCredentialsResult {
    let mut infos = Vec::new();
    for (hash, number) in MECHANISMS {
        let Some(stored) = settings.get(hash.mechanism()) else { continue };
        let Ok(credential) = ScramCredential::parse(stored) else {
            let why = "The server experienced an unexpected error when processing the request.";
            return failed(name, ResponseError::UnknownServerError, why.into());
        };
        infos.push(CredentialInfo::default().with_mechanism(number).with_iterations(credential.iterations));
    }
    if infos.is_empty() {
        let why = format!("Attempt to describe a user credential that does not exist: {name}");
        return failed(name, ResponseError::ResourceNotFound, why);
    }
    DescribeUserScramCredentialsResult::default().with_user(name).with_credential_infos(infos)
}

/// The mechanisms and their numbers on the wire. Source: Kafka `ScramMechanism`.
pub(super) const MECHANISMS: [(ScramHash, i8); 2] = [(ScramHash::Sha256, 1), (ScramHash::Sha512, 2)];

fn failed(name: StrBytes, error: ResponseError, why: String) -> DescribeUserScramCredentialsResult {
    let result = DescribeUserScramCredentialsResult::default().with_user(name).with_error_code(error.code());
    result.with_error_message(Some(text(&why)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_described_by_its_mechanisms() {
        let credential = "salt=AA==,stored_key=AA==,server_key=AA==,iterations=8192";
        let settings = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let of = |pairs: &[(&str, &str)]| described(text("u"), &settings(pairs));
        let both = of(&[("SCRAM-SHA-512", credential), ("SCRAM-SHA-256", credential), ("producer_byte_rate", "1")]);
        let infos: Vec<_> = both.credential_infos.iter().map(|info| (info.mechanism, info.iterations)).collect();
        assert_eq!((both.error_code, infos), (0, vec![(1, 8192), (2, 8192)]));
        let none = of(&[("producer_byte_rate", "1")]);
        let why = "Attempt to describe a user credential that does not exist: u";
        assert_eq!((none.error_code, none.error_message.as_deref()), (91, Some(why)));
        assert_eq!(of(&[("SCRAM-SHA-256", "hunter2")]).error_code, -1);
    }
}
