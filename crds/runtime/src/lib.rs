//! What every binary of ours needs around its core: flags, logs, health and metrics over HTTP, watches, the
//! configuration of the cluster, events, and supervised tasks.
//!
//! Nothing here decides anything about addresses; nothing here is global. Everything is made by `main` and passed on.
#![warn(missing_docs)]

pub mod client;
pub mod config_state;
pub mod config_watch;
pub mod events;
pub mod flags;
pub mod http;
pub mod logs;
pub mod metrics;
pub mod tasks;
pub mod watch;
