//! What brokers of a cluster ask of each other: the controller's requests to this broker, and a broker's to the
//! controller here. Served on listeners of brokers alone, and only beside an external ZooKeeper: whoever reached them
//! elsewhere could take partitions from their leaders (CVE-2018-1288). Where there is an authorizer they need
//! CLUSTER_ACTION on the cluster, else CLUSTER_AUTHORIZATION_FAILED (31).

pub(crate) mod allocate_producer_ids;
pub(crate) mod alter_partition;
pub(crate) mod controlled_shutdown;
pub(crate) mod leader_and_isr;
pub(crate) mod stop_replica;
pub(crate) mod update_metadata;

use bytes::BytesMut;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use kafka_protocol::ResponseError;
use tokio::sync::oneshot;

use crate::api::authorization::Authorization;
use crate::api::context::RequestContext;
use crate::api::handler::{CloseReason, Outcome, Row, Served};
use crate::cluster::control::ControlHead;
use crate::task;
use crate::types::acl::Operation;
use crate::types::limits::CONTROL_FRAME_BYTES_MAX;
use crate::wire::codec;
use crate::wire::control::{Control, Head, Message};
use crate::wire::segments::Segments;

/// The handler of a request that the codec crate does not have.
pub(in crate::api) trait ControlHandler {
    type Req: Control + Send + 'static;

    /// The answer to the whole request, with an error.
    fn refused(error_code: i16) -> <Self::Req as Control>::Answer;

    fn handle(ctx: RequestContext, req: Self::Req) -> impl Future<Output = <Self::Req as Control>::Answer> + Send;
}

/// Its row: one version.
pub(in crate::api) const fn row<H: ControlHandler + 'static>() -> Row
where
    <H::Req as Control>::Answer: Send,
{
    Row {
        key: H::Req::KEY,
        min_version: H::Req::VERSION,
        max_version: H::Req::VERSION,
        frame_bytes_max: CONTROL_FRAME_BYTES_MAX,
        run: run::<H>,
        flexible: |version| codec::is_flexible(H::Req::KEY, version),
        served: Served::ToBrokers,
        authorization: Authorization::OF_BROKERS,
    }
}

/// What such a request changes, it changes to the end, whether its connection lasts or not, and before the next one of
/// its connection begins. A panic ends the process, as in the controller's own channel.
fn run<H: ControlHandler + 'static>(ctx: RequestContext, body: BytesMut) -> BoxFuture<'static, Outcome>
where
    <H::Req as Control>::Answer: Send,
{
    async move {
        let req = match H::Req::decode(body) {
            Ok(req) => req,
            Err(error) => return Outcome::Close(CloseReason::Malformed(error.to_string())),
        };
        if !ctx.may_on_cluster(Operation::ClusterAction) {
            let refused = H::refused(ResponseError::ClusterAuthorizationFailed.code());
            return Outcome::Now(Segments::from(refused.encode()));
        }
        let (reply, answered) = oneshot::channel();
        task::spawn_owner("control-request", async move {
            // The connection may have ended.
            let _ = reply.send(H::handle(ctx, req).await);
        });
        match answered.await {
            Ok(answer) => Outcome::Now(Segments::from(answer.encode())),
            Err(_) => Outcome::Close(CloseReason::Malformed("the broker stops".into())),
        }
    }
    .boxed()
}

fn of_head(head: Head) -> ControlHead {
    ControlHead {
        controller: head.controller,
        controller_epoch: head.controller_epoch,
        broker_epoch: head.broker_epoch,
    }
}
