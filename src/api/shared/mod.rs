//! What several handlers need; none of these is a handler.

pub(super) mod alter;
pub(super) mod authorization;
pub(super) mod changes;
pub(super) mod committed;
pub(super) mod internal_topics;
pub(super) mod isolation;
pub(super) mod leader;
pub(super) mod leader_hints;
pub(super) mod loggers;
pub(super) mod quota_entity;
pub(super) mod refusal;
pub(super) mod repeated;
pub(super) mod stored;
pub(super) mod strings;
pub(super) mod throttle;
pub(super) mod verification;
