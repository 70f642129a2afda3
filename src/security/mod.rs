//! Who is at the other end of a connection, and what that may do.
//!
//! `principal` names it, `authorizer` decides.

pub(crate) mod authorizer;
pub(crate) mod principal;
