//! SaslHandshake (17), versions 0–1: a client wants to authenticate, where that is not asked for.
//!
//! Behaviour: ILLEGAL_SASL_STATE (34), so that a client with the wrong `security.protocol` is told instead of cut off.
//! On a listener that asks for SASL [`crate::api::security::authentication`] answers, and this only if the client
//! authenticates again too soon.
//! Versions: 1 says that SaslAuthenticate follows. Ignored: the mechanism.
//! Source: Kafka 3.9 `KafkaApis.handleSaslHandshakeRequest`.

use std::ops::RangeInclusive;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{SaslHandshakeRequest, SaslHandshakeResponse};

use crate::api::authorization::Authorization;
use crate::api::context::RequestContext;
use crate::api::handler::{Handler, Reply};

pub(crate) struct SaslHandshake;

impl Handler for SaslHandshake {
    type Req = SaslHandshakeRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=1;
    const AUTHORIZATION: Authorization = Authorization::Nothing("it is how clients say who they are");
    const FRAME_BYTES_MAX: usize = 512 << 10;

    async fn handle(_: RequestContext, _: SaslHandshakeRequest) -> Reply<SaslHandshakeResponse> {
        Reply::Now(SaslHandshakeResponse::default().with_error_code(ResponseError::IllegalSaslState.code()))
    }
}
