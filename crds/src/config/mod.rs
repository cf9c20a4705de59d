//! The one door for configuration: resources or legacy ConfigMap in, [`Config`] or every error out.

mod error;
mod model;

pub use error::{ConfigError, ConfigErrors, ObjectRef};
pub use model::{
    BfdProfile, BgpAdvertisement, Community, Config, L2Advertisement, Peer, PeerAddress, PeerAsn, Pool,
    PreferredNodes, ServiceAllocation,
};
