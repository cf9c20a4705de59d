//! The answer: what this node announces, and what became of each Service.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::ops::Deref;
use std::slice;
use std::sync::Arc;

use patina_crds::config::Failback;

use super::WhyNot;
use crate::view::ServiceId;

/// What this node does, with a verdict for every Service of the snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Intent {
    /// The addresses that some node should answer for, by ARP or NDP, and for which this one has an interface. It *should*
    /// where [`How::leads`], it could where it is in [`How::order`], and elsewhere it hands over
    /// what it may have had; whether it does is for [`ownership`](crate::l2::ownership) to say.
    pub l2: Arc<BTreeMap<IpAddr, L2Announcement>>,
    /// One per Service of the snapshot. Those that say the same are one: of ten thousand there are a few.
    pub verdicts: BTreeMap<ServiceId, Arc<Verdict>>,
    /// The addresses of Services that are not in `l2`, in order.
    pub others: Box<[IpAddr]>,
}

impl Intent {
    /// Whether a Service has the address, whoever announces it.
    #[must_use]
    pub fn knows(&self, ip: IpAddr) -> bool {
        self.l2.contains_key(&ip) || self.others.binary_search(&ip).is_ok()
    }
}

/// Where and for whom an address could be announced by this node. It dereferences to [`How`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct L2Announcement {
    /// The same for many addresses.
    pub how: Arc<How>,
    /// The Services that hold the address and want it announced; never empty.
    pub services: Holders,
}

impl Deref for L2Announcement {
    type Target = How;

    fn deref(&self) -> &How {
        &self.how
    }
}

/// What is alike for the addresses with the same candidates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct How {
    /// Indexes of the interfaces to answer on; never empty.
    pub interfaces: Arc<BTreeSet<u32>>,
    /// The first of the candidates that can do as much as the leader, in order, with this node among them when it is one
    /// (in its place, or last when it comes later). A node that is not, since it drains or is isolated, say, hands over.
    pub order: Arc<[Arc<str>]>,
    /// Unless failback is immediate: all those candidates, however many. One of them that holds the address may keep it.
    pub keepers: Arc<BTreeSet<Arc<str>>>,
    /// This node is the first of them.
    pub leads: bool,
    /// What the advertisements say about giving it back; of several the most patient.
    pub failback: Failback,
}

/// The Services that hold an address, in order: most often one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holders(Few);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Few {
    One(ServiceId),
    /// None, or more than one.
    More(Box<[ServiceId]>),
}

impl Default for Holders {
    fn default() -> Self {
        Self(Few::More(Box::default()))
    }
}

impl From<Vec<ServiceId>> for Holders {
    fn from(mut services: Vec<ServiceId>) -> Self {
        services.sort_unstable();
        services.dedup();
        match services.as_slice() {
            [one] => Self(Few::One(one.clone())),
            _ => Self(Few::More(services.into())),
        }
    }
}

impl Deref for Holders {
    type Target = [ServiceId];

    fn deref(&self) -> &[ServiceId] {
        match &self.0 {
            Few::One(one) => slice::from_ref(one),
            Few::More(more) => more,
        }
    }
}

impl<'a> IntoIterator for &'a Holders {
    type Item = &'a ServiceId;
    type IntoIter = slice::Iter<'a, ServiceId>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// What became of one Service, seen from this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// The node that announces it; the same on every speaker with the same snapshot. `None`: nobody does, and
    /// `why_not` is then about the Service, the same on every node.
    pub leader: Option<Arc<str>>,
    /// The first of the candidates in order, at most [`Options::max_candidates`](crate::view::Options).
    pub candidates: Arc<[Candidate]>,
    /// How many candidates there are in all.
    pub candidate_count: usize,
    /// This node leads and announces at least one of the addresses.
    pub mine: bool,
    /// When `mine`: the names of the interfaces it is announced on.
    pub interfaces: Arc<BTreeSet<String>>,
    /// When `mine`: no advertisement narrows the interfaces down (ServiceL2Status then lists none).
    pub all_interfaces: bool,
    /// When this node leads: the addresses that it cannot announce, and why. Empty when all is well.
    pub failed: BTreeMap<IpAddr, WhyNot>,
    /// When not `mine`: why.
    pub why_not: Option<WhyNot>,
}

/// A node that could announce a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Candidate {
    /// Its name.
    pub node: Arc<str>,
    /// Sum of the weights of the preferences that it matches.
    pub score: u32,
    /// How many of the Services that share the address it can serve; for a Service alone always 1.
    pub serves: usize,
    /// How many of their addresses it can announce on the segment that they belong to.
    pub announces: usize,
    /// Others are preferred to it because of this.
    pub last_resort: Option<LastResort>,
}

/// Why a candidate comes after others that can do less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LastResort {
    /// Its speaker is about to end.
    Leaving,
    /// It reaches no other speaker through its interfaces for the addresses.
    Isolated,
    /// Somebody wants its addresses elsewhere.
    Drained,
}

impl fmt::Display for LastResort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Leaving => "leaving",
            Self::Isolated => "isolated",
            Self::Drained => "draining",
        })
    }
}
