//! The drivers of the BGP machines: one task per peer on a thread of its own; sockets in, bytes out, one deadline each. They decide
//! nothing: what a peer gets is [`Desired`], what is said to it the machine says (`patina_speaker_core::bgp`).
//!
//! ```text
//!  decisions ── Desired ──> driver ──> one session per peer: connect, read, write, timer  <── accepted connections (listen)
//!  bfd ──────── news ─────────^            └──> Status of each peer: metrics, ServiceBGPStatus, `kubectl patina bgp`
//! ```

mod bfd;
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

use patina_runtime::tasks::Tasks;
use tokio::sync::watch;

pub use bfd::relay;
pub use desired::{Desired, Ending, Neighbour, Remote, Secret};
pub use driver::{BfdSays, Driver};
pub use metrics::BgpMetrics;
pub use status::{PeerStatus, Statuses};

/// Starts the driver on a thread of its own. What it tells is how the sessions are.
///
/// # Errors
/// No thread.
pub fn start(
    desired: watch::Receiver<Desired>,
    sessions: watch::Receiver<crate::bfd::Statuses>,
    metrics: BgpMetrics,
    listen: Option<u16>,
    tasks: &mut Tasks,
) -> std::io::Result<watch::Receiver<Statuses>> {
    let (statuses, told) = watch::channel(Statuses::default());
    let (says, said) = watch::channel(BfdSays::default());
    tasks.spawn_thread("bgp", move || async move {
        let driver = Driver::new(desired.clone(), said, statuses, metrics, listen);
        tokio::task::spawn_local(relay(desired, sessions, says));
        driver.run().await;
    })?;
    Ok(told)
}
