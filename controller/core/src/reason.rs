//! Every "no" of the allocation, as a value: for the condition (CamelCase word and sentence), the event, the metric.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::allocator::{Bar, Clash, Keeper};
use crate::request::RequestError;
use crate::surroundings::{Conflict, UsedBy};
use crate::view::ServiceId;

/// Names of pools for a sentence; of very many the first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolNames {
    /// In order; at most eight.
    pub shown: Vec<String>,
    /// How many more there are.
    pub more: usize,
}

impl PoolNames {
    /// Of these.
    pub fn new<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> Self {
        const SHOWN: usize = 8;
        let more = names.len().saturating_sub(SHOWN);
        Self { shown: names.take(SHOWN).map(str::to_owned).collect(), more }
    }
}

impl fmt::Display for PoolNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown.join(", "))?;
        if self.more > 0 {
            write!(f, " and {} more", self.more)?;
        }
        Ok(())
    }
}

/// Why a Service waits for an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Nothing configured at all.
    NoPools,
    /// The API server gave it no cluster IP.
    NoClusterIp,
    /// RequireDualStack with one cluster IP.
    NotEnoughClusterIps,
    /// What it asks for cannot be.
    Request(RequestError),
    /// The address it asks for is somebody else's.
    AddressTaken {
        /// The address.
        address: IpAddr,
        /// One who has it.
        owner: ServiceId,
        /// Why it cannot be shared.
        clash: Clash,
    },
    /// Pools exist, but none gives to this Service without being asked.
    NoUsablePool {
        /// All pools.
        pools: PoolNames,
    },
    /// No pool that it may use has addresses of its family.
    NoPoolOfFamily {
        /// As in "IPv4 and IPv6".
        families: String,
        /// Pools that it may use.
        pools: PoolNames,
    },
    /// Every address of every pool that it may use is taken.
    Exhausted {
        /// As in "IPv4 and IPv6".
        families: String,
        /// Pools that were tried, in this order.
        pools: PoolNames,
        /// How many of their addresses nobody has, because the network uses them or a reservation keeps them.
        kept_back: u128,
        /// An older Service that needs both families and for which the last address of one is set aside.
        set_aside_for: Option<ServiceId>,
    },
    /// An address is reserved for it, and somebody who had it before still has it.
    ReservedHeld {
        /// The address.
        address: IpAddr,
        /// The reservation.
        keeper: Arc<Keeper>,
        /// Who has it.
        owner: ServiceId,
    },
    /// An address is reserved for it that the network uses itself.
    ReservedInUse {
        /// The address.
        address: IpAddr,
        /// The reservation.
        keeper: Arc<Keeper>,
        /// What for.
        by: UsedBy,
    },
}

impl Reason {
    /// One word, for conditions and metric labels.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::NoPools => "NoPools",
            Self::NoClusterIp => "NoClusterIP",
            Self::NotEnoughClusterIps => "NotEnoughClusterIPs",
            Self::Request(error) => request_word(error),
            Self::AddressTaken { .. } => "AddressTaken",
            Self::NoUsablePool { .. } => "NoUsablePool",
            Self::NoPoolOfFamily { .. } => "NoPoolOfFamily",
            Self::Exhausted { .. } => "PoolExhausted",
            Self::ReservedHeld { .. } => "ReservedAddressHeld",
            Self::ReservedInUse { .. } => "AddressUsedByNetwork",
        }
    }

    /// Reason of the Warning event, in MetalLB's words; `None`: no event (as MetalLB).
    #[must_use]
    pub fn event(&self) -> Option<&'static str> {
        match self {
            Self::NoPools | Self::NoClusterIp => None,
            Self::NotEnoughClusterIps => Some("not enough clusterips"),
            _ => Some("AllocationFailed"),
        }
    }

    /// Every [`Reason::word`], so that a gauge per reason can be zeroed.
    pub const WORDS: [&'static str; 21] = [
        "NoPools",
        "NoClusterIP",
        "NotEnoughClusterIPs",
        "AddressTaken",
        "NoUsablePool",
        "NoPoolOfFamily",
        "PoolExhausted",
        "ReservedAddressHeld",
        "AddressUsedByNetwork",
        "AddressReserved",
        "AddressRequestedTwice",
        "AddressUnparsable",
        "AddressFamilyTwice",
        "AddressOutsideEveryPool",
        "AddressAvoided",
        "AddressesInDifferentPools",
        "AddressNotInRequestedPool",
        "UnknownPool",
        "PoolNotPermitted",
        "AddressFamilyMismatch",
        "PoolLacksFamily",
    ];
}

/// One word for what is wrong with a request.
#[must_use]
pub fn request_word(error: &RequestError) -> &'static str {
    match error {
        RequestError::BothWays { .. } => "AddressRequestedTwice",
        RequestError::Unparsable(_) => "AddressUnparsable",
        RequestError::SameFamily(..) => "AddressFamilyTwice",
        RequestError::OutsideEveryPool { .. } => "AddressOutsideEveryPool",
        RequestError::Buggy { .. } => "AddressAvoided",
        RequestError::DifferentPools(..) => "AddressesInDifferentPools",
        RequestError::NotInRequestedPool { .. } => "AddressNotInRequestedPool",
        RequestError::UnknownPool { .. } => "UnknownPool",
        RequestError::NotPermitted { .. } => "PoolNotPermitted",
        RequestError::WrongFamily { .. } => "AddressFamilyMismatch",
        RequestError::PoolLacksFamily { .. } => "PoolLacksFamily",
        RequestError::Reserved { .. } => "AddressReserved",
        RequestError::InUse { .. } => "AddressUsedByNetwork",
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPools => f.write_str("no address pool is configured; create an IPAddressPool"),
            Self::NoClusterIp => f.write_str("the Service has no cluster IP yet"),
            Self::NotEnoughClusterIps => {
                f.write_str("ipFamilyPolicy is RequireDualStack, but the Service has not two cluster IPs")
            }
            Self::Request(error) => error.fmt(f),
            Self::AddressTaken { address, owner, clash } => {
                write!(f, "requested address {address} is held by Service {owner}; {clash}")
            }
            Self::NoUsablePool { pools } => write!(
                f,
                "no pool gives addresses to this Service by itself: pool(s) {pools} have autoAssign: false or serve other \
                 namespaces or Services; name a pool with the annotation metallb.io/address-pool"
            ),
            Self::NoPoolOfFamily { families, pools } => {
                write!(f, "no pool for this Service has {families} addresses (pools: {pools})")
            }
            Self::Exhausted { families, pools, kept_back, set_aside_for } => {
                write!(f, "no available IPs: no {families} address is left in pool(s) {pools}")?;
                if let Some(older) = set_aside_for {
                    write!(
                        f,
                        "; the last one is set aside for Service {older}, which is older and needs both families"
                    )?;
                }
                if *kept_back > 0 {
                    write!(f, "; kept back by reservations or used by the network: {kept_back}")?;
                }
                Ok(())
            }
            Self::ReservedHeld { address, keeper, owner } => {
                let reservation = &keeper.reservation;
                write!(
                    f,
                    "{reservation} keeps {address} for this Service, but Service {owner} still holds it"
                )
            }
            Self::ReservedInUse { address, keeper, by } => {
                let reservation = &keeper.reservation;
                write!(f, "{reservation} keeps {address} for this Service, but it is {by}")
            }
        }
    }
}

impl fmt::Display for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.service {
            Some(service) => write!(f, "kept for Service {service} by {}", self.reservation)?,
            None => write!(f, "kept back by {}", self.reservation)?,
        }
        if self.reason.is_empty() { Ok(()) } else { write!(f, " ({})", self.reason) }
    }
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(by) => by.fmt(f),
            Self::Reserved(keeper) => keeper.fmt(f),
        }
    }
}

impl fmt::Display for Clash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key => f.write_str("to share it both need the same metallb.io/allow-shared-ip"),
            Self::Backends => f.write_str(
                "to share it with externalTrafficPolicy Local both need that policy and the same selector",
            ),
            Self::Port(port) => write!(f, "both use port {port}"),
        }
    }
}

/// Why nothing is done about a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ignored {
    /// Not of type LoadBalancer.
    NotLoadBalancer,
    /// `spec.loadBalancerClass` is not ours.
    OtherClass,
}

/// Why a Service cannot keep the address that it held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lost {
    /// Its families changed.
    FamilyChanged,
    /// RequireDualStack, and the pool has no address of the other family.
    SecondFamilyMissing {
        /// The pool of the first.
        pool: String,
    },
    /// No pool contains it any more.
    OutsideEveryPool(IpAddr),
    /// Its two addresses are in two pools now.
    DifferentPools(String, String),
    /// The pool serves others now.
    NotPermitted {
        /// The pool.
        pool: String,
    },
    /// Somebody else has it, and they cannot share.
    Taken {
        /// The address.
        address: IpAddr,
        /// Who has it.
        owner: ServiceId,
        /// Why they cannot share.
        clash: Clash,
    },
    /// It was found to be somebody else's before it was ever announced.
    Conflict {
        /// The address.
        address: IpAddr,
        /// Who has it.
        conflict: Conflict,
    },
    /// The Service asks for another pool.
    PoolRequested {
        /// Which one.
        pool: String,
    },
    /// The Service asks for another address.
    AddressRequested,
    /// [`Reason`]s that leave no address to a Service.
    Blocked(Reason),
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FamilyChanged => f.write_str("the IP families of the Service changed"),
            Self::SecondFamilyMissing { pool } => {
                write!(
                    f,
                    "the Service requires both families, and pool {pool} has no address of the second left"
                )
            }
            Self::OutsideEveryPool(ip) => write!(f, "{ip} is not in any pool (any more)"),
            Self::DifferentPools(a, b) => write!(f, "its addresses are now in different pools ({a} and {b})"),
            Self::NotPermitted { pool } => write!(f, "pool {pool} does not serve this Service any more"),
            Self::Taken { address, owner, clash } => {
                write!(f, "{address} is also held by Service {owner}, which keeps it; {clash}")
            }
            Self::Conflict { address, conflict } => write!(f, "{address} is {conflict}"),
            Self::PoolRequested { pool } => write!(f, "the Service asks for pool {pool}"),
            Self::AddressRequested => f.write_str("the Service asks for another address"),
            Self::Blocked(reason) => reason.fmt(f),
        }
    }
}

/// Something a user should hear about that does not change the decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// An annotation with the old prefix is in effect.
    DeprecatedAnnotation(String),
    /// The Service asks for something impossible and keeps what it has.
    KeptDespite(RequestError),
    /// PreferDualStack, and the pool has no address of the other family.
    NoSecondFamily {
        /// The pool of the first.
        pool: String,
    },
    /// The pools pinned to this Service are full; an open pool gave the address.
    PinnedPoolsFull {
        /// The full ones.
        pinned: PoolNames,
        /// The one that gave.
        pool: String,
    },
    /// Some of its addresses are in no pool any more, or in another than the first; it keeps the rest.
    PartLost(Vec<IpAddr>),
    /// The status listed more than one address of a family; only the first is kept.
    SurplusAddresses(Vec<IpAddr>),
    /// It has an address that it would not be given any more.
    HoldsBarred {
        /// The address.
        address: IpAddr,
        /// Why it would not.
        bar: Bar,
    },
    /// An address is reserved for it, but it has another one already.
    ReservationUnused {
        /// The lowest that is reserved for it.
        address: IpAddr,
        /// The reservation.
        keeper: Arc<Keeper>,
    },
}

impl Notice {
    /// Whether it is a Warning, and the event's reason.
    #[must_use]
    pub fn event(&self) -> (bool, &'static str) {
        match self {
            Self::DeprecatedAnnotation(_) => (true, "deprecatedAnnotation"),
            Self::KeptDespite(_) => (true, "LoadBalancerFailed"),
            Self::NoSecondFamily { .. } => (false, "AdditionalAssignFailed"),
            Self::PinnedPoolsFull { .. } => (true, "PinnedPoolsFull"),
            Self::PartLost(_) => (false, "ClearAssignment"),
            Self::SurplusAddresses(_) => (true, "nolbIPsIPFamily"),
            Self::HoldsBarred { bar: Bar::Network(UsedBy::Host(_)), .. } => (true, "AddressConflict"),
            Self::HoldsBarred { bar: Bar::Network(_), .. } => (true, "AddressUsedByNetwork"),
            Self::HoldsBarred { bar: Bar::Reserved(_), .. } => (true, "AddressReserved"),
            Self::ReservationUnused { .. } => (false, "ReservationUnused"),
        }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DeprecatedAnnotation(key) => {
                let name = key.split_once('/').map_or(key.as_str(), |(_, name)| name);
                write!(f, "annotation {key} is deprecated; use metallb.io/{name}")
            }
            Self::KeptDespite(error) => write!(f, "{error}; the Service keeps the address it has"),
            Self::NoSecondFamily { pool } => {
                write!(
                    f,
                    "pool {pool} has no address of the Service's other family left; it keeps the one it has"
                )
            }
            Self::PinnedPoolsFull { pinned, pool } => write!(
                f,
                "no address is left in pool(s) {pinned}, which are meant for this Service; pool {pool} gave one"
            ),
            Self::PartLost(gone) => {
                write!(f, "released {}: not in a pool with the other address any more", list(gone))
            }
            Self::SurplusAddresses(surplus) => {
                write!(f, "a Service has at most one address per family; given up: {}", list(surplus))
            }
            Self::HoldsBarred { address, bar } => {
                write!(f, "{address} is {bar}; the Service had it before and keeps it")
            }
            Self::ReservationUnused { address, keeper } => write!(
                f,
                "{} keeps {address} for this Service, which keeps the address it has; to get the reserved one, \
                 name it in metallb.io/loadBalancerIPs or create the Service again",
                keeper.reservation
            ),
        }
    }
}

fn list(addresses: &[IpAddr]) -> String {
    let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    texts.join(", ")
}
