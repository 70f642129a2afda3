//! The controller: one broker, elected at `/controller`, decides who leads and tells every broker.
//!
//! Every broker runs the owner task of [`controller`]; while its broker is elected the task holds a [`term::Term`].
//! Events come in on one queue: watches, answers of brokers, commands. What was decided is written as a multi that
//! begins with a check of `/controller_epoch` (I-12), then sent over one FIFO per broker, this one included.
//!
//! Restarting a broker alone elects nobody: a partition with one replica keeps its leader and its leader epoch, and is
//! sent again. Any error while writing ends the term; the next one reads everything anew, which is the one way to
//! recover.
//!
//! Never touches a log. Source: Kafka 3.9 `kafka.controller`.

mod asked;
mod assignment;
mod brokers;
mod channel;
mod context;
#[expect(clippy::module_inception, reason = "the owner of the room has the room's name, as the plan calls it")]
mod controller;
mod deletion;
mod election;
mod event;
mod failover;
mod fence;
mod isr;
mod notifications;
mod partitions;
mod preferred;
mod producer_ids;
mod queue;
mod reassignment;
mod requests;
mod retry;
mod shutdown;
mod term;
#[cfg(test)]
mod tests;
mod topics;

pub(crate) use asked::{ElectionRefused, ElectionType, Moving, ReassignmentRefused, ReassignmentResults, Wishes};
pub(crate) use channel::LinkSource;
pub(crate) use controller::{ControllerHandle, ControllerParts, ControllerSeat, seat};
pub(crate) use term::ControllerSettings;
