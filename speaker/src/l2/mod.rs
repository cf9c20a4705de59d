//! Layer 2 on the wire: sockets, and the driver of the machines in `patina_speaker_core::l2`.

mod desired;
mod driver;
mod gate;
mod links;
mod memberships;
mod news;
pub mod socket;
mod sys;

pub use desired::{Desired, Heard};
pub use driver::Driver;
