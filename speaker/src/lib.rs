//! The shell of the speaker: watches, sockets, status. What is decided is decided in `patina-speaker-core`.
//!
//! ```text
//!  API server ──> watch/ ────┐
//!  kernel ──> interfaces,     │
//!             routes ────────┼──> speaker ──(core: intent, ownership)──> l2/ ──> frames
//!  configuration (runtime) ──┤                   └──> status/, conflicts, events, metrics
//!  the others ──> membership/ ┘
//! ```

pub mod bfd;
pub mod bgp;
pub mod config_state;
pub mod conflicts;
pub mod convert;
mod deadline;
pub mod exclude;
pub mod fence;
pub mod interfaces;
pub mod l2;
pub mod members;
pub mod membership;
pub mod memory;
pub mod metrics;
pub mod moves;
pub mod moves_metrics;
mod priority;
pub mod routes;
pub mod settings;
pub mod speaker;
pub mod status;
pub mod watch;
