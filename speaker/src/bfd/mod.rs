//! The driver of the BFD machines (`patina_speaker_core::bfd`): sockets and deadlines on a thread of its own, so that nothing else
//! that the speaker does makes a packet late. It decides nothing.
//!
//! ```text
//!  decisions ── Desired ──> driver ──> a machine per session ──> talker: a socket and a source port of its own
//!                             ^  │                          └──> echo: raw, through the peer back to us
//!  UDP 3784, 4784 ── listen ──┘  └──> Statuses: BGP sessions, metrics, `kubectl patina bgp`
//! ```
//!
//! **Looping the peer's echo packets back** is the kernel's work: they are addressed to the peer itself, so a node that forwards
//! (`net.ipv4.ip_forward`) sends them back. Where it does not, none are asked for.

mod desired;
mod driver;
mod echo;
mod listen;
mod metrics;
mod socket;
mod sys;
mod table;
mod talker;

use patina_runtime::tasks::Tasks;
use tokio::sync::watch;

pub use desired::{Desired, Key, Status, Statuses, Wanted};
pub use driver::Driver;
pub use metrics::BfdMetrics;

/// Starts the driver on a thread of its own.
///
/// # Errors
/// No thread.
pub fn start(
    desired: watch::Receiver<Desired>,
    metrics: BfdMetrics,
    tasks: &mut Tasks,
) -> std::io::Result<watch::Receiver<Statuses>> {
    let (tell, statuses) = watch::channel(Statuses::default());
    let driver = Driver::new(desired, tell, metrics);
    let shutdown = tasks.shutdown();
    tasks.spawn_thread("bfd", move || driver.run(shutdown))?;
    Ok(statuses)
}
