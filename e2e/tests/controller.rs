//! The real controller against a real API server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failed expectation is a failed test

#[path = "controller/allocation.rs"]
mod allocation;
#[path = "controller/bad_input.rs"]
mod bad_input;
#[path = "controller/busy.rs"]
mod busy;
#[path = "controller/conflicts.rs"]
mod conflicts;
#[path = "controller/health.rs"]
mod health;
#[path = "controller/left_alone.rs"]
mod left_alone;
#[path = "controller/lifecycle.rs"]
mod lifecycle;
#[path = "controller/memberlist.rs"]
mod memberlist;
#[path = "controller/never_twice.rs"]
mod never_twice;
#[path = "controller/replicas.rs"]
mod replicas;
#[path = "controller/stage.rs"]
mod stage;
