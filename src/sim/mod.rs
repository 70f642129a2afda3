//! A cluster on one thread, from a seed: three brokers over one tree, and everything between them by chance.
//!
//! Records go to partitions that stay, that are reassigned, and that are deleted and made again ([`topics`]), some of
//! them in transactions; others are deleted. Disks are full now and then.
//! The controller, the replicas, the fetchers, the logs and the registration are the real ones. Replaced are what lies
//! below the seams: [`net`] carries the links and delays, cuts and resets them; [`store`] is a session of the embedded
//! tree that can be slow, cut off and expired; the disks are memory that is written when the run says so, and loses
//! what was not synced with the power; the clock is tokio's, which stands still while anything runs. A broker's tasks
//! belong to a [`crate::task::testing::Process`], so that it can be killed.
//!
//! A run draws everything from its seed and keeps a hash of what happened: the same seed gives the same run. It checks
//! the invariants of [`check`] all the while and at its end. `make sim SEEDS=1000` runs many; a seed that fails is
//! named, and `KLAMM_SIM_SEED=n` runs it alone.

mod chance;
mod check;
mod cluster;
mod load;
mod net;
mod node;
mod store;
mod tests;
mod topics;
