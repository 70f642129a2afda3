//! AlterClientQuotas (49), versions 0–1: set and take back limits of users, clients and addresses.
//!
//! Behaviour: each entry is answered for itself. An entity without parts, an unknown part or an empty name, an address
//! beside others or that is none, an unknown limit, a number that is not whole where whole ones count:
//! INVALID_REQUEST (42). Needs ALTER_CONFIGS of the cluster: CLUSTER_AUTHORIZATION_FAILED (31). A limit that is
//! removed and was not set is no error. With `validate_only` nothing is written.
//! Versions: 0; 1 flexible.
//! Ignored: nothing.
//! Source: Kafka 3.9 `ZkAdminManager.alterClientQuotas`, `DynamicConfig.Client`, `.User`, `.Ip`.

use std::ops::RangeInclusive;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::alter_client_quotas_request::{EntryData, OpData};
use kafka_protocol::messages::alter_client_quotas_response::{EntityData as AnsweredEntity, EntryData as Answered};
use kafka_protocol::messages::{AlterClientQuotasRequest, AlterClientQuotasResponse};

use crate::api::authorization::Authorization;
use crate::api::context::{Handles, RequestContext};
use crate::api::handler::{Handler, Reply};
use crate::api::shared::changes::invalid_request;
use crate::api::shared::quota_entity::{Limit, QuotaEntity};
use crate::api::shared::refusal::{Refusal, wire_outcome};
use crate::api::shared::stored;
use crate::cluster::znodes::config::Overrides;
use crate::config::numbers::java_double;
use crate::types::acl::{Operation, ResourceType};

/// AlterClientQuotas.
#[derive(Debug)]
pub(crate) struct AlterClientQuotas;

impl Handler for AlterClientQuotas {
    type Req = AlterClientQuotasRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=1;
    const AUTHORIZATION: Authorization = Authorization::Of(&[(Operation::AlterConfigs, ResourceType::Cluster)]);

    async fn handle(ctx: RequestContext, req: AlterClientQuotasRequest) -> Reply<AlterClientQuotasResponse> {
        let may = ctx.may_on_cluster(Operation::AlterConfigs);
        let mut entries = Vec::with_capacity(req.entries.len());
        for entry in req.entries {
            let outcome = match may {
                true => alter(&ctx.handles, &entry, req.validate_only).await,
                false => Err(Refusal::bare(ResponseError::ClusterAuthorizationFailed)),
            };
            let (code, message) = wire_outcome(outcome);
            let entity = entry.entity.into_iter().map(|part| {
                AnsweredEntity::default().with_entity_type(part.entity_type).with_entity_name(part.entity_name)
            });
            let answered = Answered::default().with_error_code(code).with_error_message(message);
            entries.push(answered.with_entity(entity.collect()));
        }
        Reply::Now(AlterClientQuotasResponse::default().with_entries(entries))
    }
}

async fn alter(handles: &Handles, entry: &EntryData, validate_only: bool) -> Result<(), Refusal> {
    let parts = entry.entity.iter().map(|part| (part.entity_type.as_str(), part.entity_name.as_deref()));
    let named = QuotaEntity::read(parts)?;
    let entity = named.stored().await?;
    let changed = |limits: &Overrides| {
        let changed = changed(&named, limits.clone(), &entry.ops)?;
        Ok(Some(changed).filter(|changed| !validate_only && changed != limits))
    };
    stored::change(handles, &entity, changed).await
}

fn changed(entity: &QuotaEntity, mut overrides: Overrides, ops: &[OpData]) -> Result<Overrides, Refusal> {
    for op in ops {
        let key = op.key.as_str();
        if op.remove {
            overrides.remove(key);
            continue;
        }
        let limit = entity.limit(key).ok_or_else(|| invalid_request(format!("Invalid configuration key {key}")))?;
        let value = match limit {
            Limit::Double(_) => Some(java_double(op.value)),
            Limit::Long(_) => whole(op.value, i64::MIN, i64::MAX).map(|number| number.to_string()),
            Limit::Int(_) => whole(op.value, i32::MIN.into(), i32::MAX.into()).map(|number| number.to_string()),
        };
        let kind = limit.type_name();
        let value = value.ok_or_else(|| invalid_request(format!("Configuration {key} must be a {kind} value")))?;
        overrides.insert(key.to_owned(), value);
    }
    Ok(overrides)
}

/// As Kafka takes a number for a whole one of a type: it cuts off, also what lies beyond the type, and NaN is 0.
fn whole(value: f64, least: i64, most: i64) -> Option<i64> {
    const EPSILON: f64 = 1e-6;
    let whole = ((value + EPSILON) as i64).clamp(least, most);
    let differs = (whole as f64 - value).abs() > EPSILON;
    (!differs).then_some(whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::shared::strings::text;

    fn set(key: &'static str, value: f64) -> OpData {
        OpData::default().with_key(text(key)).with_value(value)
    }

    fn of_user(ops: &[OpData]) -> Result<Overrides, Refusal> {
        let alice = QuotaEntity::read([("user", Some("alice"))].into_iter()).expect("a user");
        changed(&alice, Overrides::from([("SCRAM-SHA-256".to_owned(), "salt=".to_owned())]), ops)
    }

    #[test]
    fn limits_are_stored_beside_what_else_the_entity_has() {
        let ops = [set("producer_byte_rate", 1e9), set("request_percentage", 900.0), set("consumer_byte_rate", 0.0)];
        let stored = of_user(&ops).expect("legal");
        assert_eq!(stored["producer_byte_rate"], "1000000000");
        assert_eq!((&*stored["request_percentage"], &*stored["consumer_byte_rate"]), ("900.0", "0"));
        assert_eq!(stored["SCRAM-SHA-256"], "salt=");
        assert_eq!(of_user(&[set("producer_byte_rate", f64::NAN)]).expect("as Kafka")["producer_byte_rate"], "0");
        let removed = OpData::default().with_key(text("no_such")).with_remove(true);
        assert_eq!(of_user(&[removed]).expect("no error").len(), 1);
    }

    #[test]
    fn what_kafka_refuses_is_refused_in_its_words() {
        let refused = |op| of_user(&[op]).expect_err("refused").message.expect("a text");
        assert_eq!(refused(set("no_such", 1.0)), "Invalid configuration key no_such");
        assert_eq!(refused(set("connection_creation_rate", 1.0)), "Invalid configuration key connection_creation_rate");
        for value in [-5.0, 1.5] {
            assert_eq!(
                refused(set("producer_byte_rate", value)),
                "Configuration producer_byte_rate must be a LONG value"
            );
        }
    }

    /// Java ends a broker's start over a limit that it cannot read.
    #[test]
    fn what_is_stored_java_can_read() {
        let ops = [set("request_percentage", f64::INFINITY), set("controller_mutation_rate", 1e300)];
        let stored = of_user(&ops).expect("as Kafka");
        let texts = [&*stored["request_percentage"], &*stored["controller_mutation_rate"]];
        assert_eq!(texts, ["Infinity", "1.0E300"]);
        let address = QuotaEntity::read([("ip", Some("10.0.0.1"))].into_iter()).expect("an address");
        let of_address = |value| changed(&address, Overrides::new(), &[set("connection_creation_rate", value)]);
        let most = of_address(f64::from(i32::MAX)).expect("legal");
        assert_eq!(most["connection_creation_rate"], i32::MAX.to_string());
        let refused = of_address(3e9).expect_err("more than an INT").message;
        assert_eq!(refused.as_deref(), Some("Configuration connection_creation_rate must be a INT value"));
    }
}
