//! Who is at the other end of a connection, and what that may do.
//!
//! `principal` names it.

pub(crate) mod principal;
