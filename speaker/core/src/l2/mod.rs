//! Layer 2: who announces, how a request is answered, when an announcement is repeated.

pub mod announcer;
pub mod election;
pub mod filter;
pub mod responder;
pub mod wire;
