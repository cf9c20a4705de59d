//! The speaker's BFD driver on real wires: with itself, with FRR's bfdd and with BIRD. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failed expectation is a failed test

#[path = "speaker_bfd/alone.rs"]
mod alone;
#[path = "speaker_bfd/busy.rs"]
mod busy;
#[path = "speaker_bfd/echo.rs"]
mod echo;
#[path = "speaker_bfd/us.rs"]
mod us;
#[path = "speaker_bfd/with_routers.rs"]
mod with_routers;
