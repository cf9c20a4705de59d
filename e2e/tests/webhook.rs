//! The webhooks through a real API server: what is refused, what is converted, and what becomes of both while
//! certificates end, replicas die, and others apply their manifests again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failed expectation is a failed test

#[path = "webhook/certificates.rs"]
mod certificates;
#[path = "webhook/edits.rs"]
mod edits;
#[path = "webhook/life.rs"]
mod life;
#[path = "webhook/stage.rs"]
mod stage;
