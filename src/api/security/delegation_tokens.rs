//! CreateDelegationToken (38), RenewDelegationToken (39), ExpireDelegationToken (40), DescribeDelegationToken (41):
//! what a client gives to others, so that they speak for it without its password.
//!
//! Behaviour
//! - Through a listener that asks nobody who it is, and on a connection that itself showed a token:
//!   DELEGATION_TOKEN_REQUEST_NOT_ALLOWED (64). Without `delegation.token.secret.key`: DELEGATION_TOKEN_AUTH_DISABLED
//!   (61).
//! - A token for somebody else (KIP-373) needs CREATE_TOKENS of that user: DELEGATION_TOKEN_AUTHORIZATION_FAILED (65).
//!   A renewer that is no user: INVALID_PRINCIPAL_TYPE (67). Lives `delegation.token.max.lifetime.ms` or less, and
//!   `delegation.token.expiry.time.ms` without being renewed.
//! - Renewed and made to expire by its owner or a renewer alone, DELEGATION_TOKEN_OWNER_MISMATCH (63), not by whoever
//!   had it made. No such key: DELEGATION_TOKEN_NOT_FOUND (62). Over: DELEGATION_TOKEN_EXPIRED (66), but for a negative
//!   period of 40, which deletes it.
//! - Described are tokens whose owner, requester or renewer asks, and others with DESCRIBE of the token or
//!   DESCRIBE_TOKENS of its owner; of these, where owners are named, those that one of them owns, had made or may
//!   renew. An empty list of owners: none.
//!   In the order of their ids; Kafka has none.
//!
//! Versions: 38 and 41 from 1 to 3, 39 and 40 from 1 to 2; version 0 is not in the codec. 38 and 41: 3 tells the
//! requester apart from the owner. Ignored: nothing.
//! Source: Kafka 3.9 `KafkaApis.allowTokenRequests`, `handleCreateTokenRequestZk`, `handleDescribeTokensRequest`,
//! `DelegationTokenManager.filterToken`.

use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_delegation_token_response::{
    DescribedDelegationToken, DescribedDelegationTokenRenewer,
};
use kafka_protocol::messages::{
    CreateDelegationTokenRequest, CreateDelegationTokenResponse, DescribeDelegationTokenRequest,
    DescribeDelegationTokenResponse, ExpireDelegationTokenRequest, ExpireDelegationTokenResponse,
    RenewDelegationTokenRequest, RenewDelegationTokenResponse,
};
use kafka_protocol::protocol::StrBytes;
use tracing::warn;

use crate::api::authorization::Authorization;
use crate::api::context::RequestContext;
use crate::api::error_code::{of_token_error, of_token_store_error};
use crate::api::handler::{Handler, Reply};
use crate::api::shared::strings::text;
use crate::clock::UnixMs;
use crate::cluster::znodes::tokens::TokenInfo;
use crate::security::principal::{Principal, USER};
use crate::security::tokens::{Token, TokenError, Tokens, is_shown_to};
use crate::types::acl::{Operation, ResourceType};

/// 38 and 41, from here on.
const VERSION_REQUESTER: i16 = 3;
/// What stands for no time.
const NO_TIME: UnixMs = -1;

/// CreateDelegationToken.
#[derive(Debug)]
pub(crate) struct CreateDelegationToken;

impl Handler for CreateDelegationToken {
    type Req = CreateDelegationTokenRequest;
    const VERSIONS: RangeInclusive<i16> = 1..=3;
    const AUTHORIZATION: Authorization = Authorization::Of(&[(Operation::CreateTokens, ResourceType::User)]);

    async fn handle(ctx: RequestContext, req: CreateDelegationTokenRequest) -> Reply<CreateDelegationTokenResponse> {
        let owner = owner(&ctx, &req);
        Reply::Now(match create(&ctx, &req, &owner).await {
            Ok(Token { info, key }) => created(&ctx, &owner)
                .with_issue_timestamp_ms(info.issued_ms)
                .with_expiry_timestamp_ms(info.expires_ms)
                .with_max_timestamp_ms(info.max_ms)
                .with_token_id(text(&*info.id))
                .with_hmac(Bytes::copy_from_slice(key.bytes())),
            Err(error) => created(&ctx, &owner)
                .with_error_code(error.code())
                .with_issue_timestamp_ms(NO_TIME)
                .with_expiry_timestamp_ms(NO_TIME)
                .with_max_timestamp_ms(NO_TIME),
        })
    }
}

/// Whose token it will be.
fn owner(ctx: &RequestContext, req: &CreateDelegationTokenRequest) -> Principal {
    match req.owner_principal_name.as_deref().filter(|name| !name.is_empty()) {
        Some(name) => Principal::new(req.owner_principal_type.as_deref().unwrap_or_default(), name),
        None => (*ctx.principal).clone(),
    }
}

async fn create(
    ctx: &RequestContext,
    req: &CreateDelegationTokenRequest,
    owner: &Principal,
) -> Result<Token, ResponseError> {
    check_allowed(ctx)?;
    if *owner != *ctx.principal && !ctx.may(Operation::CreateTokens, ResourceType::User, &owner.to_string()) {
        return Err(ResponseError::DelegationTokenAuthorizationFailed);
    }
    if req.renewers.iter().any(|renewer| renewer.principal_type.as_str() != USER) {
        return Err(ResponseError::InvalidPrincipalType);
    }
    let renewers = req.renewers.iter().map(|renewer| Principal::user(renewer.principal_name.as_str())).collect();
    let made = enabled(ctx)?.create(owner, &ctx.principal, renewers, req.max_lifetime_ms).await;
    made.map_err(|failure| {
        warn!(%owner, error = %failure, "a delegation token was not made");
        of_token_store_error(&failure)
    })
}

/// Without what only success tells.
fn created(ctx: &RequestContext, owner: &Principal) -> CreateDelegationTokenResponse {
    let response = CreateDelegationTokenResponse::default()
        .with_principal_type(text(&*owner.kind))
        .with_principal_name(text(&*owner.name));
    if ctx.version < VERSION_REQUESTER {
        return response;
    }
    response
        .with_token_requester_principal_type(text(&*ctx.principal.kind))
        .with_token_requester_principal_name(text(&*ctx.principal.name))
}

/// RenewDelegationToken.
#[derive(Debug)]
pub(crate) struct RenewDelegationToken;

impl Handler for RenewDelegationToken {
    type Req = RenewDelegationTokenRequest;
    const VERSIONS: RangeInclusive<i16> = 1..=2;
    const AUTHORIZATION: Authorization = Authorization::Nothing("a token's owner and its renewers may");

    async fn handle(ctx: RequestContext, req: RenewDelegationTokenRequest) -> Reply<RenewDelegationTokenResponse> {
        let outcome = match usable(&ctx) {
            Ok(tokens) => told(tokens.renew(&ctx.principal, &req.hmac, req.renew_period_ms).await),
            Err(error) => Err(error),
        };
        let (code, expires_ms) = wire(outcome);
        Reply::Now(RenewDelegationTokenResponse::default().with_error_code(code).with_expiry_timestamp_ms(expires_ms))
    }
}

/// ExpireDelegationToken.
#[derive(Debug)]
pub(crate) struct ExpireDelegationToken;

impl Handler for ExpireDelegationToken {
    type Req = ExpireDelegationTokenRequest;
    const VERSIONS: RangeInclusive<i16> = 1..=2;
    const AUTHORIZATION: Authorization = Authorization::Nothing("a token's owner and its renewers may");

    async fn handle(ctx: RequestContext, req: ExpireDelegationTokenRequest) -> Reply<ExpireDelegationTokenResponse> {
        let outcome = match usable(&ctx) {
            Ok(tokens) => told(tokens.expire(&ctx.principal, &req.hmac, req.expiry_time_period_ms).await),
            Err(error) => Err(error),
        };
        let (code, expires_ms) = wire(outcome);
        Reply::Now(ExpireDelegationTokenResponse::default().with_error_code(code).with_expiry_timestamp_ms(expires_ms))
    }
}

fn told(outcome: Result<UnixMs, TokenError>) -> Result<UnixMs, ResponseError> {
    outcome.map_err(|error| {
        if let TokenError::Store(failure) = &error {
            warn!(error = %failure, "a delegation token was not changed");
        }
        of_token_error(&error)
    })
}

fn wire(outcome: Result<UnixMs, ResponseError>) -> (i16, UnixMs) {
    match outcome {
        Ok(expires_ms) => (0, expires_ms),
        Err(error) => (error.code(), NO_TIME),
    }
}

/// DescribeDelegationToken.
#[derive(Debug)]
pub(crate) struct DescribeDelegationToken;

impl Handler for DescribeDelegationToken {
    type Req = DescribeDelegationTokenRequest;
    const VERSIONS: RangeInclusive<i16> = 1..=3;
    const AUTHORIZATION: Authorization = Authorization::Of(&[
        (Operation::Describe, ResourceType::DelegationToken),
        (Operation::DescribeTokens, ResourceType::User),
    ]);

    async fn handle(
        ctx: RequestContext,
        req: DescribeDelegationTokenRequest,
    ) -> Reply<DescribeDelegationTokenResponse> {
        let tokens = match usable(&ctx) {
            Ok(tokens) => tokens,
            Err(error) => return Reply::Now(DescribeDelegationTokenResponse::default().with_error_code(error.code())),
        };
        let owners: Option<Vec<String>> = req.owners.as_ref().map(|owners| {
            let owners = owners.iter();
            owners.map(|owner| format!("{}:{}", &*owner.principal_type, &*owner.principal_name)).collect()
        });
        let shown = tokens.tokens(|info| shows(&ctx, owners.as_deref(), info));
        let described = shown.into_iter().map(|token| described(&ctx, &token)).collect();
        Reply::Now(DescribeDelegationTokenResponse::default().with_tokens(described))
    }
}

fn shows(ctx: &RequestContext, owners: Option<&[String]>, info: &TokenInfo) -> bool {
    let asked = owners.is_none_or(|owners| owners.iter().any(|owner| is_shown_to(info, owner)));
    asked
        && (is_shown_to(info, &ctx.principal.to_string())
            || ctx.may(Operation::Describe, ResourceType::DelegationToken, &info.id)
            || ctx.may(Operation::DescribeTokens, ResourceType::User, &info.owner))
}

fn described(ctx: &RequestContext, token: &Token) -> DescribedDelegationToken {
    let Token { info, key } = token;
    let (owner_type, owner_name) = split(&info.owner);
    let renewer = |renewer: &String| {
        let (kind, name) = split(renewer);
        DescribedDelegationTokenRenewer::default().with_principal_type(kind).with_principal_name(name)
    };
    let described = DescribedDelegationToken::default()
        .with_principal_type(owner_type)
        .with_principal_name(owner_name)
        .with_issue_timestamp(info.issued_ms)
        .with_expiry_timestamp(info.expires_ms)
        .with_max_timestamp(info.max_ms)
        .with_token_id(text(&*info.id))
        .with_hmac(Bytes::copy_from_slice(key.bytes()))
        .with_renewers(info.renewers.iter().map(renewer).collect());
    if ctx.version < VERSION_REQUESTER {
        return described;
    }
    let (kind, name) = split(&info.requester);
    described.with_token_requester_principal_type(kind).with_token_requester_principal_name(name)
}

fn split(principal: &str) -> (StrBytes, StrBytes) {
    let (kind, name) = principal.split_once(':').unwrap_or((USER, principal));
    (text(kind), text(name))
}

/// Who may ask anything about tokens: whoever has proved who it is, by more than a token.
fn check_allowed(ctx: &RequestContext) -> Result<(), ResponseError> {
    match ctx.principal.by_token || *ctx.principal == Principal::anonymous() {
        true => Err(ResponseError::DelegationTokenRequestNotAllowed),
        false => Ok(()),
    }
}

fn enabled(ctx: &RequestContext) -> Result<&Arc<Tokens>, ResponseError> {
    ctx.handles.tokens.as_ref().ok_or(ResponseError::DelegationTokenAuthDisabled)
}

fn usable(ctx: &RequestContext) -> Result<&Arc<Tokens>, ResponseError> {
    check_allowed(ctx)?;
    enabled(ctx)
}
