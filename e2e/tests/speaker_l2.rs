//! The speaker's driver on a real wire: a veth pair between two network namespaces. Who asks and who watches are
//! programs of others (arping, ndisc6, tcpdump, the kernel of the peer). Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failed expectation is a failed test

#[path = "speaker_l2/claims.rs"]
mod claims;
#[path = "speaker_l2/fence.rs"]
mod fence;
#[path = "speaker_l2/filters.rs"]
mod filters;
#[path = "speaker_l2/frames.rs"]
mod frames;
#[path = "speaker_l2/interfaces.rs"]
mod interfaces;
#[path = "speaker_l2/ndp.rs"]
mod ndp;
#[path = "speaker_l2/observers.rs"]
mod observers;
#[path = "speaker_l2/programs.rs"]
mod programs;
#[path = "speaker_l2/wire.rs"]
mod wire;
