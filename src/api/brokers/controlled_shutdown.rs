//! ControlledShutdown (7), version 3: a broker asks the controller here to move away what it leads.
//!
//! Behaviour
//! - NOT_CONTROLLER (41) unless this broker is; STALE_BROKER_EPOCH (77) from a former registration.
//! - The answer names what the broker still leads; it stops when that is nothing, or asks again.
//!
//! Source: Kafka 3.9 `KafkaApis.handleControlledShutdownRequest`, `KafkaController.doControlledShutdown`.

use super::ControlHandler;
use crate::api::context::RequestContext;
use crate::api::error_code::of_controller_error;
use crate::cluster::control::ShutdownLink;
use crate::wire::control::{self as wire, ControlledShutdownAnswer};

pub(crate) struct ControlledShutdown;

impl ControlHandler for ControlledShutdown {
    type Req = wire::ControlledShutdown;

    fn refused(error_code: i16) -> ControlledShutdownAnswer {
        ControlledShutdownAnswer { error_code, remaining: Vec::new() }
    }

    async fn handle(ctx: RequestContext, req: wire::ControlledShutdown) -> ControlledShutdownAnswer {
        match ctx.handles.controller.controlled_shutdown(req.broker, req.broker_epoch).await {
            Ok(remaining) => ControlledShutdownAnswer { error_code: 0, remaining },
            Err(refused) => ControlledShutdownAnswer { error_code: of_controller_error(&refused), remaining: vec![] },
        }
    }
}
