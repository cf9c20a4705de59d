//! What this node answers for, and the protocol machines that do it: values in, values out. No sockets, no clock.
//!
//! [`view`] is what the shell shows us, [`intent`] what follows from it for this node, [`l2`] the machines that carry
//! it out on a segment. Start reading at [`intent::intent`], or at [`l2::responder`] for how a request is answered.
#![warn(missing_docs)]

pub mod bfd;
pub mod bgp;
pub mod intent;
pub mod l2;
pub mod membership;
pub mod view;
