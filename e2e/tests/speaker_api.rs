//! The speaker binary on two nodes of a real network, against a real API server with hand-written Services, endpoints,
//! Nodes and Pods. Who asks is arping in a third namespace. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failed expectation is a failed test

#[path = "speaker_api/endures.rs"]
mod endures;
#[path = "speaker_api/follows.rs"]
mod follows;
#[path = "speaker_api/networks.rs"]
mod networks;
#[path = "speaker_api/world.rs"]
mod world;
