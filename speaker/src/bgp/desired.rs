//! What the decision task asks of the driver.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use patina_speaker_core::bgp::peer;
use patina_speaker_core::bgp::rib::Table;
use patina_speaker_core::view::InterfaceView;

use crate::bfd;

/// Whom to speak to, and what they should have. The newest value is all that counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// By the name of the peer.
    pub peers: BTreeMap<String, Arc<Neighbour>>,
    /// What each should have; a peer without an entry has nothing.
    pub tables: BTreeMap<String, Table>,
    /// The BFD sessions that watch them, of those that BFD watches.
    pub bfd: BTreeMap<String, bfd::Key>,
    /// The node's interfaces: next hops of the other family, link-local addresses.
    pub interfaces: Arc<Vec<InterfaceView>>,
    /// The node is drained: routes are marked with GRACEFUL_SHUTDOWN (RFC 8326).
    pub draining: bool,
    /// The process ends.
    pub ending: Option<Ending>,
}

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Another process takes over on this node soon.
    Restart,
    /// For good: routes are withdrawn by the end of the session.
    Shutdown,
}

/// One peer, as this node speaks to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Of the machine.
    pub settings: peer::Settings,
    /// Where it is.
    pub remote: Remote,
    /// Its TCP port.
    pub port: u16,
    /// Our address of the session.
    pub source: Option<IpAddr>,
    /// The VRF device of the session.
    pub vrf: Option<String>,
    /// TCP-MD5 key (RFC 2385).
    pub password: Option<Secret>,
    /// Packets with a smaller TTL do not count (RFC 5082). We always send with 255.
    pub minimum_ttl: Option<u8>,
}

/// Where a peer is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Remote {
    /// At this address.
    Ip(IpAddr),
    /// The router that speaks on this interface.
    Interface(String),
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Interface(name) => write!(f, "interface {name}"),
        }
    }
}

/// A text that no log shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

impl Neighbour {
    /// Whether a session for `self` can go on as one for `other`: only the key may differ, which changes on the open
    /// connection.
    #[must_use]
    pub fn goes_on_as(&self, other: &Self) -> bool {
        let settings = peer::Settings { restarted: self.settings.restarted, ..other.settings.clone() };
        let other = Self { password: self.password.clone(), settings, ..other.clone() };
        *self == other
    }
}
