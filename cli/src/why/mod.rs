//! `kubectl patina why`: what the cluster says about one Service, put into sentences.
//!
//! [`mod@gather`] asks the cluster, [`mod@explain`] decides, [`render`] prints; only the first knows a client.

mod explain;
mod facts;
mod gather;
mod render;

pub use explain::{About, Address, Announcer, Explanation, Finding, explain};
pub use facts::Facts;
pub use gather::gather;
pub use render::{json, text};
