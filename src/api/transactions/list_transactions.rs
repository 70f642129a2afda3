//! ListTransactions (66), versions 0–2: the transactional ids that this broker coordinates (KIP-664).
//!
//! Behaviour: while a partition is loading, or cannot be shown, since followers do not have what it would show, there
//! is nothing but COORDINATOR_LOAD_IN_PROGRESS (14). Filters of states are names as Kafka writes them, and those that
//! do not exist are named in the answer; a negative duration filters nothing. Ids without a transaction pass every
//! duration, as in Kafka. A pattern has to match the whole of an id; an empty one matches all, and one that cannot be
//! read is INVALID_REGULAR_EXPRESSION (128). Those of which there is no DESCRIBE are left out.
//! Versions: 0; 1 durations (KIP-994); 2 a pattern of ids (KIP-1152). Ignored: nothing.
//! Source: Kafka 3.9 and 4.1 `TransactionStateManager.listTransactionStates`.

use std::ops::RangeInclusive;

use futures_util::FutureExt;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_transactions_response::TransactionState;
use kafka_protocol::messages::{ListTransactionsRequest, ListTransactionsResponse, ProducerId as WireProducerId};
use kafka_protocol::protocol::StrBytes;
use regex::{Regex, RegexBuilder};

use crate::api::authorization::Authorization;
use crate::api::context::RequestContext;
use crate::api::error_code::of_transaction_error;
use crate::api::handler::{Handler, Reply};
use crate::api::shared::strings::text;
use crate::coordinator::transaction::error::TransactionError;
use crate::coordinator::transaction::request::{ListRequest, Listing};
use crate::coordinator::transaction::state_names;
use crate::types::acl::{Operation, ResourceType};
use crate::types::{ProducerId, limits};

const VERSION_DURATION: i16 = 1;

/// Most memory that a compiled pattern may take.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// ListTransactions.
#[derive(Debug)]
pub(crate) struct ListTransactions;

impl Handler for ListTransactions {
    type Req = ListTransactionsRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=2;
    const AUTHORIZATION: Authorization = Authorization::Of(&[(Operation::Describe, ResourceType::TransactionalId)]);
    const FRAME_BYTES_MAX: usize = limits::GROUP_FRAME_BYTES_MAX;

    async fn handle(ctx: RequestContext, req: ListTransactionsRequest) -> Reply<ListTransactionsResponse> {
        let (request, unknown) = wanted(ctx.version, &req);
        let Ok(pattern) = pattern(req.transactional_id_pattern.as_deref().unwrap_or_default()) else {
            let refused = ListTransactionsResponse::default();
            return Reply::Now(refused.with_error_code(ResponseError::InvalidRegularExpression.code()));
        };
        let answer = ctx.handles.transactions.list(request).await;
        let shown = move |listed: Result<Vec<Listing>, TransactionError>| {
            let mut listed = listed?;
            listed.retain(|row| pattern.as_ref().is_none_or(|pattern| pattern.is_match(&row.id)));
            listed.retain(|row| ctx.may(Operation::Describe, ResourceType::TransactionalId, &row.id));
            Ok(listed)
        };
        Reply::Later(answer.map(move |listed| answered(shown(listed), unknown)).boxed())
    }
}

/// What is asked for, and the names of states that do not exist.
fn wanted(version: i16, req: &ListTransactionsRequest) -> (ListRequest, Vec<StrBytes>) {
    let (known, unknown): (Vec<&StrBytes>, Vec<&StrBytes>) =
        req.state_filters.iter().partition(|name| state_names().any(|known| known == name.as_str()));
    let request = ListRequest {
        states: (!req.state_filters.is_empty()).then(|| known.iter().map(|name| name.to_string()).collect()),
        producer_ids: req.producer_id_filters.iter().map(|id| ProducerId(id.0)).collect(),
        duration_ms: (version >= VERSION_DURATION && req.duration_filter >= 0).then_some(req.duration_filter),
    };
    (request, unknown.into_iter().cloned().collect())
}

/// What matches an id as a whole; `None`: every id does. Where the expression is too large, as where it is wrong.
fn pattern(text: &str) -> Result<Option<Regex>, regex::Error> {
    if text.is_empty() {
        return Ok(None);
    }
    // By itself first: `a)(b` would be one expression within the parentheses.
    let build = |text: &str| RegexBuilder::new(text).size_limit(PATTERN_BYTES_MAX).build();
    build(text)?;
    build(&format!("^(?:{text})$")).map(Some)
}

fn answered(listed: Result<Vec<Listing>, TransactionError>, unknown: Vec<StrBytes>) -> ListTransactionsResponse {
    let response = ListTransactionsResponse::default();
    let listed = match listed {
        Ok(listed) => listed,
        Err(error) => return response.with_error_code(of_transaction_error(error).code()),
    };
    let states = listed.into_iter().map(|row| {
        TransactionState::default()
            .with_transactional_id(text(&*row.id).into())
            .with_producer_id(WireProducerId(row.producer_id.0))
            .with_transaction_state(text(row.state))
    });
    response.with_unknown_state_filters(unknown).with_transaction_states(states.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::codec::encode_response;

    #[test]
    fn names_of_states_that_do_not_exist_are_told_and_match_nothing() {
        let names = |names: &[&str]| names.iter().map(|name| text(*name)).collect::<Vec<_>>();
        let req = ListTransactionsRequest::default().with_duration_filter(5);
        let (request, unknown) = wanted(0, &req.clone().with_state_filters(names(&["ongoing", "Dead", "Empty"])));
        assert_eq!(request.states, Some(vec!["Dead".to_owned(), "Empty".to_owned()]));
        assert_eq!((unknown, request.duration_ms), (names(&["ongoing"]), None));
        let (request, _) = wanted(1, &req);
        assert_eq!((request.states, request.duration_ms), (None, Some(5)));
        assert_eq!(wanted(1, &ListTransactionsRequest::default()).0.duration_ms, None);
    }

    #[test]
    fn a_pattern_matches_the_whole_of_an_id() {
        let matches = |text: &str, id: &str| pattern(text).map(|found| found.is_none_or(|found| found.is_match(id)));
        for (text, id, expected) in [
            ("", "anything", true),
            ("app-.*", "app-1", true),
            ("app", "app-1", false),
            ("pp-1", "app-1", false),
            ("a|b", "ab", false),
            ("a|b", "b", true),
        ] {
            assert_eq!(matches(text, id), Ok(expected), "{text} {id}");
        }
        for wrong in ["[", "a)(b", "*", "(?:a{1000}){1000}"] {
            assert!(pattern(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn answers_encode_in_every_version() {
        let row = || Listing { id: "t".into(), producer_id: ProducerId(1), state: "Ongoing" };
        for version in ListTransactions::VERSIONS {
            for listed in [Ok(vec![row()]), Err(TransactionError::CoordinatorLoadInProgress)] {
                assert!(encode_response(&answered(listed, vec![text("x")]), version).is_ok(), "{version}");
            }
        }
    }
}
