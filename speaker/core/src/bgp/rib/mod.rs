//! What one peer should have of us, what it has, and the UPDATEs between the two (Adj-RIB-Out, RFC 4271 section 3.2).

mod table;

use std::collections::{BTreeMap, BTreeSet};

use patina_crds::net::Family;

use super::message::{Attributes, Update};
pub use table::{Table, Tables, Wanted, table};

/// How a session dresses a route of a family.
pub trait Dress {
    /// The attributes of this route on this session; `None`: it has no next hop for it, and the route stays home.
    fn dress(&self, family: Family, wanted: &Wanted) -> Option<Attributes>;

    /// How many octets of NLRI (RFC 4271 section 4.3: a length octet and the prefix's own) fit one message of this family beside
    /// these attributes; `None`: in a message of withdrawals.
    fn room(&self, family: Family, attributes: Option<&Attributes>) -> usize;
}

/// The state of one peer.
#[derive(Debug, Default)]
pub struct AdjRibOut {}

impl AdjRibOut {
    /// From now on the peer should have this. Equal tables cost a comparison and send nothing. Before the first call nothing is
    /// known, and no End-of-RIB goes out.
    pub fn want(&mut self, _table: Table) {}

    /// A session of these families came up: the peer has nothing of us.
    pub fn session_up(&mut self, _families: &BTreeSet<Family>) {}

    /// It is gone, and with it all that the peer had.
    pub fn session_down(&mut self) {}

    /// The peer wants the family's routes again (RFC 2918). When they have gone, [`AdjRibOut::poll_refreshed`] says so.
    pub fn refresh(&mut self, _family: Family) {}

    /// [`Dress`] answers otherwise from now on: what the peer has goes out again.
    pub fn redress(&mut self) {}

    /// The next UPDATE to send: fits one message; `None`: the peer has what it should have.
    pub fn next(&mut self, _dress: &dyn Dress) -> Option<Update> {
        None
    }

    /// A family whose refresh is complete: the place of EoRR (RFC 7313 section 4). Ask after each [`AdjRibOut::next`].
    pub fn poll_refreshed(&mut self) -> Option<Family> {
        None
    }

    /// Routes that the peer has of us, by family; families of the session only.
    #[must_use]
    pub fn sent(&self) -> BTreeMap<Family, usize> {
        BTreeMap::new()
    }

    /// Prefixes that are to be sent or taken back.
    #[must_use]
    pub fn pending(&self) -> usize {
        0
    }
}
