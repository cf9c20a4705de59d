//! What the decision task asks of the driver, and what the driver tells.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Instant;

use patina_speaker_core::bfd::{Settings, View};
use patina_speaker_core::bgp::peer::Bfd;

/// Which sessions there should be. The newest value is all that counts.
pub type Desired = BTreeMap<Key, Wanted>;

/// How each of them is.
pub type Statuses = BTreeMap<Key, Status>;

/// Which session: two that watch the same path are one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The peer's address.
    pub peer: IpAddr,
    /// Ours; `None`: as the routes have it.
    pub local: Option<IpAddr>,
    /// The interface that leads to the peer; a link-local address needs one.
    pub interface: Option<String>,
    /// The VRF device of the session.
    pub vrf: Option<String>,
    /// Over several hops (RFC 5883); else the peer is on the same link (RFC 5881).
    pub multihop: bool,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.peer)?;
        for (word, name) in [("%", &self.interface), (" vrf ", &self.vrf)] {
            if let Some(name) = name {
                write!(f, "{word}{name}")?;
            }
        }
        Ok(())
    }
}

/// What one session should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Of the machine; the driver sets `multihop` as the key has it, and `loops_echo` as the node does.
    pub settings: Settings,
    /// The operator holds it down.
    pub admin_down: bool,
}

/// How one session is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// What the machine says.
    pub view: View,
    /// What the BGP session of this peer should be told: how BFD last came up or went down. One that an operator, ours or
    /// theirs, took down stays so until it is up again. `None`: it was never up.
    pub says: Option<Bfd>,
    /// bfd.LocalDiscr.
    pub local_discriminator: u32,
    /// Its state is so since.
    pub since: Instant,
    /// How often it went down from up. Who looks seldom sees by it what happened meanwhile.
    pub downs: u64,
    /// Why it cannot speak or hear.
    pub trouble: Option<String>,
}
