//! Layer 2: who announces, how a request is answered, when an announcement is repeated.

pub mod election;
