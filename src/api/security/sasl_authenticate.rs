//! SaslAuthenticate (36), versions 0–2: a step of an authentication, where none is due.
//!
//! Behaviour: ILLEGAL_SASL_STATE (34), as for [`crate::api::security::sasl_handshake`]. Where one is due
//! [`crate::api::security::authentication`] answers.
//! Versions: 1 session lifetime; 2 flexible. Ignored: the token.
//! Source: Kafka 3.9 `KafkaApis.handleSaslAuthenticateRequest`.

use std::ops::RangeInclusive;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{SaslAuthenticateRequest, SaslAuthenticateResponse};
use kafka_protocol::protocol::StrBytes;

use crate::api::authorization::Authorization;
use crate::api::context::RequestContext;
use crate::api::handler::{Handler, Reply};

pub(crate) struct SaslAuthenticate;

impl Handler for SaslAuthenticate {
    type Req = SaslAuthenticateRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=2;
    const AUTHORIZATION: Authorization = Authorization::Nothing("it is how clients say who they are");
    const FRAME_BYTES_MAX: usize = 512 << 10;

    async fn handle(_: RequestContext, _: SaslAuthenticateRequest) -> Reply<SaslAuthenticateResponse> {
        let reason = "SaslAuthenticate request received after successful authentication";
        let refused = SaslAuthenticateResponse::default().with_error_code(ResponseError::IllegalSaslState.code());
        Reply::Now(refused.with_error_message(Some(StrBytes::from_static_str(reason))))
    }
}
