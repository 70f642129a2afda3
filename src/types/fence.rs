//! What holds an owner's appends together: they follow each other in the log without a gap, or they are refused.

use super::LeaderEpoch;

/// Which opening of a log it is: another one each time the log is opened anew because appends were refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LogOpening(pub u64);

/// What an append has to find, or it is refused. Without it an append could follow one that was refused while it was on
/// its way, and leave a hole that its owner does not know of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fence {
    /// The partition is led here, and has been without a gap since this epoch: a later one of the same leadership,
    /// which any follower's death brings, takes nothing from the log.
    pub epoch: LeaderEpoch,
    /// The log has not been opened anew since the owner asked for it.
    pub opening: LogOpening,
}
