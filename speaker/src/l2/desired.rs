//! What the decision task asks of the driver, and what the driver tells it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use patina_speaker_core::intent::L2Announcement;
use patina_speaker_core::view::InterfaceView;

/// The addresses to answer for, and the interfaces they are on. The newest value is all that counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// All interfaces of the node that are not excluded.
    pub interfaces: Vec<InterfaceView>,
    /// Each address with its interfaces.
    pub addresses: BTreeMap<IpAddr, L2Announcement>,
    /// Those of `addresses` that are answered for but not announced: a successor is about to, and must not be
    /// contradicted.
    pub quiet: BTreeSet<IpAddr>,
}

/// Something that the driver saw on the wire and somebody else decides about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Another host announced this address, unasked.
    Gratuitous(IpAddr),
}
