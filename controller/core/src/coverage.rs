//! Whether anything would announce an address of a pool: the silence that most users of a load balancer meet first.

use std::fmt;

use patina_crds::config::Config;
use patina_crds::selector::{Labels, any_matches};

/// The piece that is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotAdvertised {
    /// No advertisement covers the pool.
    NoAdvertisement {
        /// The pool.
        pool: String,
    },
    /// Advertisements cover the pool, but their serviceSelectors leave this Service out.
    OtherServices {
        /// The pool.
        pool: String,
        /// Those advertisements.
        advertisements: Vec<String>,
    },
    /// Only BGPAdvertisements cover it, and no peer is configured that they would go to.
    NoPeer {
        /// The pool.
        pool: String,
        /// Those advertisements.
        advertisements: Vec<String>,
    },
}

impl NotAdvertised {
    /// One word, for the condition.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::NoAdvertisement { .. } => "NoAdvertisement",
            Self::OtherServices { .. } => "NoAdvertisementForService",
            Self::NoPeer { .. } => "NoBGPPeer",
        }
    }

    /// Every [`NotAdvertised::word`].
    pub const WORDS: [&'static str; 3] = ["NoAdvertisement", "NoAdvertisementForService", "NoBGPPeer"];
}

impl fmt::Display for NotAdvertised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAdvertisement { pool } => write!(
                f,
                "nothing announces pool {pool}: no L2Advertisement or BGPAdvertisement covers it; create an \
                 L2Advertisement with ipAddressPools: [{pool}]"
            ),
            Self::OtherServices { pool, advertisements } => write!(
                f,
                "nothing announces this Service: the serviceSelectors of {}, which cover pool {pool}, do not match its \
                 labels",
                advertisements.join(", ")
            ),
            Self::NoPeer { pool, advertisements } => write!(
                f,
                "nothing announces pool {pool}: {} cover it, but there is no BGPPeer for them; create a BGPPeer or an \
                 L2Advertisement",
                advertisements.join(", ")
            ),
        }
    }
}

/// What is missing for an address of `pool` to be announced for a Service with these labels; `None`: nothing.
#[must_use]
pub fn missing(config: &Config, pool: &str, service_labels: &Labels) -> Option<NotAdvertised> {
    let pool_name = || pool.to_owned();
    let mut elsewhere = Vec::new();
    for ad in config.l2_advertisements.iter().filter(|ad| ad.pools.contains(pool)) {
        if any_matches(&ad.service_selectors, service_labels) {
            return None;
        }
        elsewhere.push(ad.source.to_string());
    }
    let mut matching = Vec::new();
    let mut has_peer = false;
    for ad in config.bgp_advertisements.iter().filter(|ad| ad.pools.contains(pool)) {
        if any_matches(&ad.service_selectors, service_labels) {
            has_peer |= config.peers.iter().any(|p| ad.peers.is_empty() || ad.peers.contains(&p.source.name));
            matching.push(ad.source.to_string());
        } else {
            elsewhere.push(ad.source.to_string());
        }
    }
    match (has_peer, matching.is_empty(), elsewhere.is_empty()) {
        (true, ..) => None,
        (false, false, _) => Some(NotAdvertised::NoPeer { pool: pool_name(), advertisements: matching }),
        (false, true, false) => {
            Some(NotAdvertised::OtherServices { pool: pool_name(), advertisements: elsewhere })
        }
        (false, true, true) => Some(NotAdvertised::NoAdvertisement { pool: pool_name() }),
    }
}
