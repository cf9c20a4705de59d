//! The drivers of the BGP machines: one task per peer on a thread of its own; sockets in, bytes out, one deadline each. They decide
//! nothing: what a peer gets is [`Desired`], what is said to it the machine says (`patina_speaker_core::bgp`).
//!
//! ```text
//!  decisions ── Desired ──> driver ──> one session per peer: connect, read, write, timer  <── accepted connections (listen)
//!  bfd ──────── news ─────────^            └──> Status of each peer: metrics, ServiceBGPStatus, `kubectl patina bgp`
//! ```

mod desired;
mod driver;
mod listen;
mod metrics;
mod routers;
mod session;
mod socket;
mod status;
mod sys;
mod wire;

pub use desired::{Desired, Ending, Neighbour, Remote, Secret};
pub use driver::{BfdSays, Driver};
pub use metrics::BgpMetrics;
pub use status::{PeerStatus, Statuses};
