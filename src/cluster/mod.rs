//! The cluster as znodes say it: their paths and encodings, this broker's registration, the metadata image, topic and
//! config writes that any broker may make, and the control requests as types.
//!
//! Never touches logs and never elects. The image is fed by UpdateMetadata alone (I-16).

pub(crate) mod acls;
pub(crate) mod admin;
pub(crate) mod auto_create;
mod change_notes;
pub(crate) mod control;
pub(crate) mod dynamic_config;
pub(crate) mod epochs_before;
pub(crate) mod image;
mod known_overrides;
pub(crate) mod placement;
pub(crate) mod producer_ids;
pub(crate) mod read_at_last;
pub(crate) mod registration;
pub(crate) mod running_config;
pub(crate) mod tokens;
pub(crate) mod znodes;
