//! CreateDelegationToken (38), RenewDelegationToken (39), ExpireDelegationToken (40), DescribeDelegationToken (41): a
//! broker without a secret to sign tokens with.
//!
//! Behaviour: through a listener that asks nobody who it is: DELEGATION_TOKEN_REQUEST_NOT_ALLOWED (64). Through others:
//! DELEGATION_TOKEN_AUTH_DISABLED (61), since `delegation.token.secret.key` ends a start. One for somebody else needs
//! CREATE_TOKENS of that user: DELEGATION_TOKEN_AUTHORIZATION_FAILED (65).
//! Versions: 38 and 41 from 1 to 3, 39 and 40 from 1 to 2; version 0 is not in the codec. Ignored: all of the request.
//! Source: Kafka 3.9 `KafkaApis.allowTokenRequests`, `handleCreateTokenRequestZk`, `handleDescribeTokensRequest`.

use std::ops::RangeInclusive;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{
    CreateDelegationTokenRequest, CreateDelegationTokenResponse, DescribeDelegationTokenRequest,
    DescribeDelegationTokenResponse, ExpireDelegationTokenRequest, ExpireDelegationTokenResponse,
    RenewDelegationTokenRequest, RenewDelegationTokenResponse,
};

use crate::api::authorization::Authorization;
use crate::api::context::RequestContext;
use crate::api::handler::{Handler, Reply};
use crate::api::shared::strings::text;
use crate::security::principal::Principal;
use crate::types::acl::{Operation, ResourceType};

/// CreateDelegationToken.
#[derive(Debug)]
pub(crate) struct CreateDelegationToken;

impl Handler for CreateDelegationToken {
    type Req = CreateDelegationTokenRequest;
    const VERSIONS: RangeInclusive<i16> = 1..=3;
    const AUTHORIZATION: Authorization = Authorization::Of(&[(Operation::CreateTokens, ResourceType::User)]);

    async fn handle(ctx: RequestContext, req: CreateDelegationTokenRequest) -> Reply<CreateDelegationTokenResponse> {
        let requester = &ctx.principal;
        let code = match may_own(&ctx, &req) {
            true => refusal(&ctx),
            false => ResponseError::DelegationTokenAuthorizationFailed.code(),
        };
        Reply::Now(
            CreateDelegationTokenResponse::default()
                .with_error_code(code)
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
    const AUTHORIZATION: Authorization = Authorization::Nothing("there are no tokens");

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
    const AUTHORIZATION: Authorization = Authorization::Nothing("there are no tokens");

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
    const AUTHORIZATION: Authorization = Authorization::Nothing("there are no tokens");

    async fn handle(ctx: RequestContext, _: DescribeDelegationTokenRequest) -> Reply<DescribeDelegationTokenResponse> {
        Reply::Now(DescribeDelegationTokenResponse::default().with_error_code(refusal(&ctx)))
    }
}

/// Whether the token would be the requester's own, or another's for whom it may have one made.
fn may_own(ctx: &RequestContext, req: &CreateDelegationTokenRequest) -> bool {
    let name = req.owner_principal_name.as_deref().filter(|name| !name.is_empty());
    let (Some(name), false) = (name, *ctx.principal == Principal::anonymous()) else { return true };
    let owner = format!("{}:{name}", req.owner_principal_type.as_deref().unwrap_or_default());
    owner == ctx.principal.to_string() || ctx.may(Operation::CreateTokens, ResourceType::User, &owner)
}

fn refusal(ctx: &RequestContext) -> i16 {
    let error = match *ctx.principal == Principal::anonymous() {
        true => ResponseError::DelegationTokenRequestNotAllowed,
        false => ResponseError::DelegationTokenAuthDisabled,
    };
    error.code()
}
