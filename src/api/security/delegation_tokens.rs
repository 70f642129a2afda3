//! CreateDelegationToken (38), RenewDelegationToken (39), ExpireDelegationToken (40), DescribeDelegationToken (41): a
//! broker without a secret to sign tokens with.
//!
//! Behaviour: through a listener that asks nobody who it is: DELEGATION_TOKEN_REQUEST_NOT_ALLOWED (64). Through others:
//! DELEGATION_TOKEN_AUTH_DISABLED (61), since `delegation.token.secret.key` ends a start.
//! Versions: 38 and 41 from 1 to 3, 39 and 40 from 1 to 2; version 0 is not in the codec. Ignored: all of the request.
//! Source: Kafka 3.9 `KafkaApis.allowTokenRequests`, `handleCreateTokenRequestZk`, `handleDescribeTokensRequest`.

use std::ops::RangeInclusive;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{
    CreateDelegationTokenRequest, CreateDelegationTokenResponse, DescribeDelegationTokenRequest,
    DescribeDelegationTokenResponse, ExpireDelegationTokenRequest, ExpireDelegationTokenResponse,
    RenewDelegationTokenRequest, RenewDelegationTokenResponse,
};

use crate::api::context::RequestContext;
use crate::api::handler::{Handler, Reply};
use crate::api::shared::strings::text;
use crate::security::principal::Principal;

/// CreateDelegationToken.
#[derive(Debug)]
pub(crate) struct CreateDelegationToken;

impl Handler for CreateDelegationToken {
    type Req = CreateDelegationTokenRequest;
    const VERSIONS: RangeInclusive<i16> = 1..=3;

    async fn handle(ctx: RequestContext, _: CreateDelegationTokenRequest) -> Reply<CreateDelegationTokenResponse> {
        let requester = &ctx.principal;
        Reply::Now(
            CreateDelegationTokenResponse::default()
                .with_error_code(refusal(&ctx))
                .with_principal_type(text(&*requester.kind))
                .with_principal_name(text(&*requester.name))
                .with_token_requester_principal_type(text(&*requester.kind))
                .with_token_requester_principal_name(text(&*requester.name))
                .with_issue_timestamp_ms(-1)
                .with_expiry_timestamp_ms(-1)
                .with_max_timestamp_ms(-1),
        )
    }
}

/// RenewDelegationToken.
#[derive(Debug)]
pub(crate) struct RenewDelegationToken;

impl Handler for RenewDelegationToken {
    type Req = RenewDelegationTokenRequest;
    const VERSIONS: RangeInclusive<i16> = 1..=2;

    async fn handle(ctx: RequestContext, _: RenewDelegationTokenRequest) -> Reply<RenewDelegationTokenResponse> {
        let code = refusal(&ctx);
        Reply::Now(RenewDelegationTokenResponse::default().with_error_code(code).with_expiry_timestamp_ms(-1))
    }
}

/// ExpireDelegationToken.
#[derive(Debug)]
pub(crate) struct ExpireDelegationToken;

impl Handler for ExpireDelegationToken {
    type Req = ExpireDelegationTokenRequest;
    const VERSIONS: RangeInclusive<i16> = 1..=2;

    async fn handle(ctx: RequestContext, _: ExpireDelegationTokenRequest) -> Reply<ExpireDelegationTokenResponse> {
        let code = refusal(&ctx);
        Reply::Now(ExpireDelegationTokenResponse::default().with_error_code(code).with_expiry_timestamp_ms(-1))
    }
}

/// DescribeDelegationToken.
#[derive(Debug)]
pub(crate) struct DescribeDelegationToken;

impl Handler for DescribeDelegationToken {
    type Req = DescribeDelegationTokenRequest;
    const VERSIONS: RangeInclusive<i16> = 1..=3;

    async fn handle(ctx: RequestContext, _: DescribeDelegationTokenRequest) -> Reply<DescribeDelegationTokenResponse> {
        Reply::Now(DescribeDelegationTokenResponse::default().with_error_code(refusal(&ctx)))
    }
}

fn refusal(ctx: &RequestContext) -> i16 {
    let error = match *ctx.principal == Principal::anonymous() {
        true => ResponseError::DelegationTokenRequestNotAllowed,
        false => ResponseError::DelegationTokenAuthDisabled,
    };
    error.code()
}
