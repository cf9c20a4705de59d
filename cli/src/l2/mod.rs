//! `kubectl patina l2`: who announces what by layer 2, since when and why, and who would be next.
//!
//! [`mod@gather`] asks the cluster, [`mod@list`] decides, [`render`] prints; only the first knows a client.

mod gather;
mod list;
mod render;

pub use gather::{Facts, gather};
pub use list::{Announcer, Conflict, Filter, Listing, Row, list};
pub use render::{json, text};
