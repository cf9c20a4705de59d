//! Allocation as a function: Services and a [`patina_crds::config::Config`] in, decisions out.
//!
//! * [`view`]: what a Service is to us; no Kubernetes type gets further than the shell's `watch.rs`.
//! * [`request`]: what its annotations and fields ask for, and what is wrong with that.
//! * [`allocator`]: who holds which address of which pool.
//! * [`decide`]: one Service, one decision, with the reason for every "no" ([`reason`]).
//! * [`reconcile`]: all Services in the right order: adopt first, then decide what changed, then serve who waits.
//! * [`coverage`]: whether anything would announce an address.
//! * [`writes`]: what to write next into which Service, and what has to wait.
//!
//! No clock, no socket, no client, no randomness: the same input gives the same addresses.
#![warn(missing_docs)]

pub mod allocator;
pub mod coverage;
pub mod decide;
pub mod reason;
pub mod reconcile;
pub mod request;
pub mod surroundings;
pub mod view;
mod waiting;
pub mod writes;
