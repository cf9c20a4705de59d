//! Layer 2: who announces, how a request is answered, when an announcement is repeated.

pub mod announcer;
pub mod duty;
pub mod election;
pub mod elector;
pub mod filter;
pub mod ownership;
pub mod responder;
pub mod wire;
