//! What one peer should have of us, what it has, and the UPDATEs between the two (Adj-RIB-Out, RFC 4271 section 3.2).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use patina_crds::config::Community;
use patina_crds::net::Family;

use super::message::{Attributes, Update};
use crate::intent::routes::Prefix;

/// What a peer should get: prefixes, and what of the configuration goes with them. Sets of equal content are shared.
pub type Table = BTreeMap<Prefix, Arc<Wanted>>;

/// Of a route, before a session gives it AS_PATH and next hop.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wanted {
    /// RFC 1997, RFC 8092.
    pub communities: BTreeSet<Community>,
    /// To peers of our own AS.
    pub local_pref: Option<u32>,
}

/// How a session dresses a route of a family; `None`: it has no next hop for it, and the route stays home.
pub trait Dress {
    /// The attributes of this route on this session.
    fn dress(&self, family: Family, wanted: &Wanted) -> Option<Attributes>;
}

/// The state of one peer.
#[derive(Debug, Default)]
pub struct AdjRibOut {}

impl AdjRibOut {
    /// From now on the peer should have this. Equal tables cost a comparison and send nothing.
    pub fn want(&mut self, _table: Table) {}

    /// The next UPDATE to send, whose prefixes fit `room` octets of NLRI; `None`: the peer has what it should have.
    pub fn next(&mut self, _room: usize, _dress: &dyn Dress) -> Option<Update> {
        None
    }
}
