//! StopReplica (5), version 4: partitions that this broker no longer serves, or whose data go.
//!
//! Behaviour is `replica::control`'s: STALE_BROKER_EPOCH (77) and STALE_CONTROLLER_EPOCH (11) refuse the request; of
//! one partition FENCED_LEADER_EPOCH (74) says that a later leader epoch is known, KAFKA_STORAGE_ERROR (56) that its
//! data could not be deleted. A leader epoch of −2 (the topic is being deleted) or −1 (the sender knows none) is never
//! too old. Source: Kafka 3.9 `KafkaApis.handleStopReplicaRequest`, `ReplicaManager.stopReplicas`.

use super::{ControlHandler, of_head};
use crate::api::context::RequestContext;
use crate::api::error_code::of_control_error;
use crate::cluster::control::{StopPartition, StopReplica as Stops};
use crate::wire::control::{self as wire, StopReplicaAnswer};

pub(crate) struct StopReplica;

impl ControlHandler for StopReplica {
    type Req = wire::StopReplica;

    fn refused(error_code: i16) -> StopReplicaAnswer {
        StopReplicaAnswer { error_code, partitions: Vec::new() }
    }

    async fn handle(ctx: RequestContext, req: wire::StopReplica) -> StopReplicaAnswer {
        match ctx.handles.control.stop_replica(stops(req)).await {
            Ok(results) => {
                let code = |result: Result<(), _>| result.as_ref().err().map_or(0, of_control_error);
                let partitions = results.into_iter().map(|(topic, partition, result)| (topic, partition, code(result)));
                StopReplicaAnswer { error_code: 0, partitions: partitions.collect() }
            }
            Err(refused) => StopReplicaAnswer { error_code: of_control_error(&refused), partitions: Vec::new() },
        }
    }
}

fn stops(req: wire::StopReplica) -> Stops {
    let mut partitions = Vec::new();
    for (topic, stops) in req.topics {
        partitions.extend(stops.into_iter().map(|stop| StopPartition {
            topic: topic.clone(),
            partition: stop.partition,
            leader_epoch: Some(stop.leader_epoch).filter(|epoch| epoch.0 >= 0),
            delete: stop.delete,
        }));
    }
    Stops { head: of_head(req.head), partitions }
}
