//! The one door for configuration: resources or legacy ConfigMap in, [`Config`] or every error out.
//!
//! [`build`] is the whole of it. The controller, the speaker, the webhook and `kubectl patina check` call the same
//! function, so they never disagree about what a configuration means.

mod bfd;
mod bgp;
mod communities;
mod draft;
pub(crate) mod duration;
mod error;
mod failback;
mod l2;
mod legacy;
pub mod manifest;
pub mod migrate;
mod model;
mod notices;
mod peers;
mod pool_set;
mod pools;
mod render;
mod reservations;

use std::collections::BTreeMap;

pub use draft::Notice;
pub use error::{ConfigError, ConfigErrors, ObjectRef};
pub use model::{
    BfdProfile, BgpAdvertisement, Community, Config, Failback, L2Advertisement, Peer, PeerAddress, PeerAsn,
    Pool, PreferredNodes, Reservation, ServiceAllocation,
};
pub use pool_set::Pools;

use crate::types;
use draft::{Drafts, Problems};

/// Everything that a configuration can be made of, as the API server (or a file) has it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resources {
    /// The namespace that is read; objects that say another one are refused. Empty: any.
    pub namespace: String,
    /// IPAddressPools.
    pub pools: Vec<types::IPAddressPool>,
    /// L2Advertisements.
    pub l2_advertisements: Vec<types::L2Advertisement>,
    /// BGPAdvertisements.
    pub bgp_advertisements: Vec<types::BGPAdvertisement>,
    /// BGPPeers.
    pub peers: Vec<types::BGPPeer>,
    /// BFDProfiles.
    pub bfd_profiles: Vec<types::BFDProfile>,
    /// Communities.
    pub communities: Vec<types::Community>,
    /// AddressReservations.
    pub reservations: Vec<types::AddressReservation>,
    /// The ConfigMap of MetalLB 0.9 to 0.12, when there is one.
    pub legacy: Option<LegacyConfigMap>,
    /// Secrets of the namespace, by name.
    pub secrets: BTreeMap<String, SecretView>,
}

impl Resources {
    /// How many objects of configuration there are; Secrets, to which others only refer, are not counted.
    #[must_use]
    pub fn count(&self) -> usize {
        self.pools.len()
            + self.l2_advertisements.len()
            + self.bgp_advertisements.len()
            + self.peers.len()
            + self.bfd_profiles.len()
            + self.communities.len()
            + self.reservations.len()
            + usize::from(self.legacy.is_some())
    }

    /// Adds what was found elsewhere. A second ConfigMap is not taken but returned: which one would count?
    #[must_use]
    pub fn absorb(&mut self, found: Self) -> Option<LegacyConfigMap> {
        self.pools.extend(found.pools);
        self.l2_advertisements.extend(found.l2_advertisements);
        self.bgp_advertisements.extend(found.bgp_advertisements);
        self.peers.extend(found.peers);
        self.bfd_profiles.extend(found.bfd_profiles);
        self.communities.extend(found.communities);
        self.reservations.extend(found.reservations);
        self.secrets.extend(found.secrets);
        if self.legacy.is_some() {
            return found.legacy;
        }
        self.legacy = found.legacy;
        None
    }
}

/// What matters of the legacy ConfigMap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LegacyConfigMap {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The value of its data key `config`; `None` when there is no such key.
    pub data: Option<String>,
}

/// What matters of a Secret.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SecretView {
    /// `type` of the Secret.
    pub type_: String,
    /// Value of its key `password`; `None` when there is no such key.
    pub password: Option<String>,
}

impl std::fmt::Debug for SecretView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let password = self.password.as_ref().map(|_| "<hidden>");
        f.debug_struct("SecretView").field("type_", &self.type_).field("password", &password).finish()
    }
}

/// A configuration that can be used, with what its author should know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What is allowed but probably not meant, or about to go away.
    pub notices: Vec<Notice>,
}

/// Turns resources into a configuration.
///
/// # Errors
/// Every error there is, not just the first, in the order pools, advertisements, peers, BFD profiles, communities.
/// Nothing is half loaded: the caller keeps its last good configuration.
pub fn build(resources: &Resources) -> Result<Loaded, ConfigErrors> {
    let mut problems = Problems::default();
    let mut drafts = Drafts::of_resources(resources, &mut problems);
    if let Some(legacy) = &resources.legacy {
        drafts.add_legacy(legacy::read(legacy, &mut problems), &mut problems);
    }

    let pools = pools::build(&drafts.pools, &mut problems);
    let aliases = communities::build(&drafts.aliases, &mut problems);
    let l2_advertisements = l2::build(&drafts.l2_advertisements, &pools, &mut problems);
    let bgp_advertisements = bgp::build(&drafts.bgp_advertisements, &pools, &aliases, &mut problems);
    let bfd_profiles = bfd::build(&drafts.bfd_profiles, &mut problems);
    let peers = peers::build(&drafts.peers, resources, &drafts.bfd_profiles, &mut problems);
    bfd::check_echo(&bfd_profiles, &peers, &drafts.peers, &bgp_advertisements, &pools, &mut problems);

    let reservations = reservations::build(&drafts.reservations, &pools, &mut problems);
    let pools = Pools::from(pools);
    let config = Config { pools, l2_advertisements, bgp_advertisements, peers, bfd_profiles, reservations };
    notices::look_for_gaps(&config, &drafts, &mut problems);
    problems.finish(config)
}
