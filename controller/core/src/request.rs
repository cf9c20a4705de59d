//! What a Service asks for (api.md 3.1), and what can be wrong with it whatever is free.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use patina_crds::config::{Config, Pool};
use patina_crds::keys;
use patina_crds::net::Family;
use patina_crds::selector::Labels;

use crate::allocator::{Allocator, Bar, Keeper, is_buggy};
use crate::surroundings::UsedBy;
use crate::view::{FamilyPolicy, ServiceView};

/// The wishes of a Service, read but not checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// Annotation `address-pool`; `None` when absent or empty.
    pub pool: Option<String>,
    /// Annotation `loadBalancerIPs`, as written.
    pub annotated_addresses: Option<String>,
    /// `spec.loadBalancerIP`, as written.
    pub spec_address: Option<String>,
    /// Annotation `allow-shared-ip`; empty when absent.
    pub shared_key: String,
    /// Deprecated annotations that are in effect.
    pub deprecated: Vec<String>,
}

impl Wishes {
    /// Reads fields and annotations. Of the two prefixes `metallb.io` wins when it is there, even with an empty value.
    #[must_use]
    pub fn read(service: &ServiceView) -> Self {
        let mut deprecated = Vec::new();
        let mut annotation = |name: &str| -> Option<String> {
            let [current, old] = keys::PREFIXES;
            if let Some(value) = service.annotations.get(&format!("{current}/{name}")) {
                return Some(value.clone());
            }
            let key = format!("{old}/{name}");
            let value = service.annotations.get(&key)?.clone();
            deprecated.push(key);
            Some(value)
        };
        let pool = annotation(keys::ADDRESS_POOL);
        let addresses = annotation(keys::LOAD_BALANCER_IPS);
        let shared_key = annotation(keys::ALLOW_SHARED_IP).unwrap_or_default();
        let given = |text: String| (!text.is_empty()).then_some(text);
        Self {
            pool: pool.and_then(given),
            annotated_addresses: addresses.and_then(given),
            spec_address: given(service.load_balancer_ip.clone()),
            shared_key,
            deprecated,
        }
    }
}

/// Wishes that the configuration could fulfil.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Only from this pool.
    pub pool: Option<String>,
    /// Exactly these, in the order of the Service's families; empty: any.
    pub addresses: Vec<IpAddr>,
}

/// Wishes that no free address could ever fulfil: somebody has to edit the Service or a pool.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Two places name an address.
    #[error(
        "both spec.loadBalancerIP ({spec}) and the annotation metallb.io/loadBalancerIPs ({annotation}) name an address; \
         keep only one of them"
    )]
    BothWays {
        /// `spec.loadBalancerIP`.
        spec: String,
        /// The annotation.
        annotation: String,
    },
    /// Not an address.
    #[error("requested address {0:?} is not an IP address")]
    Unparsable(String),
    /// More than one per family.
    #[error("requested addresses {0} and {1} are both {family}; a Service has at most one address per family", family = Family::of(*.0))]
    SameFamily(IpAddr, IpAddr),
    /// In no pool.
    #[error("requested address {address} is in no pool; the pools are {pools}")]
    OutsideEveryPool {
        /// The address.
        address: IpAddr,
        /// Names and ranges.
        pools: String,
    },
    /// In a pool that leaves it out.
    #[error("requested address {address} ends in .0 or .255, which pool {pool} leaves out (avoidBuggyIPs)")]
    Buggy {
        /// The address.
        address: IpAddr,
        /// The pool.
        pool: String,
    },
    /// In two pools.
    #[error(
        "requested addresses are in different pools ({0} and {1}); all addresses of a Service come from one pool"
    )]
    DifferentPools(String, String),
    /// The address is in another pool than the annotation names.
    #[error(
        "requested address {address} is in pool {pool}, but the annotation address-pool names {requested}"
    )]
    NotInRequestedPool {
        /// The address.
        address: IpAddr,
        /// Where it is.
        pool: String,
        /// What the annotation says.
        requested: String,
    },
    /// The annotation names no pool.
    #[error("requested pool {requested:?} does not exist; the pools are {pools}")]
    UnknownPool {
        /// What the annotation says.
        requested: String,
        /// Names and ranges.
        pools: String,
    },
    /// The pool is pinned to others.
    #[error(
        "pool {pool} does not serve this Service: its serviceAllocation names other namespaces or Services"
    )]
    NotPermitted {
        /// The pool.
        pool: String,
    },
    /// Addresses of other families than the Service has.
    #[error("requested {requested}, but the Service is {service}")]
    WrongFamily {
        /// Families of the requested addresses.
        requested: String,
        /// Families of the Service.
        service: String,
    },
    /// The pool has no addresses of the family.
    #[error("requested pool {pool} has no {families} addresses")]
    PoolLacksFamily {
        /// The pool.
        pool: String,
        /// What the Service needs.
        families: String,
    },
    /// A reservation keeps the address, and not for this Service.
    #[error("requested address {address} is {keeper}")]
    Reserved {
        /// The address.
        address: IpAddr,
        /// The reservation.
        keeper: Arc<Keeper>,
    },
    /// The network uses the address itself.
    #[error("requested address {address} is {by}; the network's own addresses are not given to Services")]
    InUse {
        /// The address.
        address: IpAddr,
        /// What for.
        by: UsedBy,
    },
}

/// Checks wishes against the configuration, not against what is free: of `allocator` it only matters which pool an address
/// is in, and what bars it. What the Service holds already is not barred.
///
/// # Errors
/// The first thing that is wrong.
pub fn check(
    service: &ServiceView,
    wishes: &Wishes,
    held: &[IpAddr],
    config: &Config,
    namespace_labels: &Labels,
    allocator: &Allocator,
) -> Result<Request, RequestError> {
    let addresses = requested_addresses(service, wishes)?;
    if let Some(name) = &wishes.pool
        && !config.pools.contains_key(name)
    {
        return Err(RequestError::UnknownPool { requested: name.clone(), pools: describe_pools(config) });
    }
    let mut owner: Option<&Pool> = None;
    for address in &addresses {
        let pool = pool_of(config, allocator, *address)?;
        if let Some(other) = owner
            && other.name != pool.name
        {
            return Err(RequestError::DifferentPools(other.name.clone(), pool.name.clone()));
        }
        if let Some(requested) = wishes.pool.as_ref().filter(|name| **name != pool.name) {
            return Err(RequestError::NotInRequestedPool {
                address: *address,
                pool: pool.name.clone(),
                requested: requested.clone(),
            });
        }
        owner = Some(pool);
    }
    let pool = owner.or_else(|| wishes.pool.as_ref().and_then(|name| config.pools.get(name)));
    if let Some(pool) = pool {
        if !pool.allocation.permits(&service.id.namespace, namespace_labels, &service.labels) {
            return Err(RequestError::NotPermitted { pool: pool.name.clone() });
        }
        if addresses.is_empty() {
            check_families(service, pool)?;
        }
    }
    for address in addresses.iter().filter(|address| !held.contains(address)) {
        match allocator.bar(*address, &service.id) {
            Some(Bar::Network(by)) => {
                return Err(RequestError::InUse { address: *address, by: by.clone() });
            }
            Some(Bar::Reserved(keeper)) => {
                let keeper = Arc::clone(keeper);
                return Err(RequestError::Reserved { address: *address, keeper });
            }
            None => {}
        }
    }
    Ok(Request { pool: wishes.pool.clone(), addresses })
}

fn requested_addresses(service: &ServiceView, wishes: &Wishes) -> Result<Vec<IpAddr>, RequestError> {
    let text = match (&wishes.spec_address, &wishes.annotated_addresses) {
        (Some(spec), Some(annotation)) => {
            return Err(RequestError::BothWays { spec: spec.clone(), annotation: annotation.clone() });
        }
        (Some(spec), None) => vec![spec.trim()],
        (None, Some(annotation)) => annotation.split(',').map(str::trim).collect(),
        (None, None) => return Ok(Vec::new()),
    };
    let mut addresses: Vec<IpAddr> = Vec::new();
    for part in text {
        let address: IpAddr = part.parse().map_err(|_| RequestError::Unparsable(part.to_owned()))?;
        if let Some(other) = addresses.iter().find(|other| Family::of(**other) == Family::of(address)) {
            return Err(RequestError::SameFamily(*other, address));
        }
        addresses.push(address);
    }
    let order = service.cluster_families();
    let mut wanted = order.clone();
    let mut requested: Vec<Family> = addresses.iter().map(|ip| Family::of(*ip)).collect();
    let (as_written, as_needed) = (describe_families(&requested), describe_families(&wanted));
    requested.sort_unstable();
    wanted.sort_unstable();
    if requested != wanted {
        return Err(RequestError::WrongFamily { requested: as_written, service: as_needed });
    }
    addresses.sort_by_key(|ip| order.iter().position(|family| *family == Family::of(*ip)));
    Ok(addresses)
}

fn pool_of<'a>(config: &'a Config, allocator: &Allocator, address: IpAddr) -> Result<&'a Pool, RequestError> {
    let Some(pool) = allocator.pool_around(address).and_then(|name| config.pools.get(name)) else {
        return Err(RequestError::OutsideEveryPool { address, pools: describe_pools(config) });
    };
    if pool.avoid_buggy_ips && is_buggy(address) {
        return Err(RequestError::Buggy { address, pool: pool.name.clone() });
    }
    Ok(pool)
}

fn check_families(service: &ServiceView, pool: &Pool) -> Result<(), RequestError> {
    let families = service.cluster_families();
    let lacks = |family: &&Family| !pool.ranges.iter().any(|range| range.family() == **family);
    let lacking: Vec<Family> = families.iter().filter(lacks).copied().collect();
    let hopeless = match service.family_policy {
        FamilyPolicy::PreferDual => lacking.len() == families.len(),
        FamilyPolicy::Single | FamilyPolicy::RequireDual => !lacking.is_empty(),
    };
    if hopeless {
        let families = describe_families(&lacking);
        return Err(RequestError::PoolLacksFamily { pool: pool.name.clone(), families });
    }
    Ok(())
}

/// "IPv4 and IPv6".
pub(crate) fn describe_families(families: &[Family]) -> String {
    let names: Vec<String> = families.iter().map(ToString::to_string).collect();
    if names.is_empty() { "of no family".to_owned() } else { names.join(" and ") }
}

/// Names and ranges for a sentence; of very many pools the first.
pub(crate) fn describe_pools(config: &Config) -> String {
    const SHOWN: usize = 8;
    let mut text = String::new();
    for (i, pool) in config.pools.values().take(SHOWN).enumerate() {
        let ranges: Vec<String> = pool.ranges.iter().take(SHOWN).map(ToString::to_string).collect();
        let more = if pool.ranges.len() > SHOWN { ", ..." } else { "" };
        let comma = if i > 0 { ", " } else { "" };
        // Writing to a String cannot fail.
        let _ = write!(text, "{comma}{} ({}{more})", pool.name, ranges.join(", "));
    }
    if config.pools.len() > SHOWN {
        let _ = write!(text, " and {} more", config.pools.len() - SHOWN);
    }
    text
}
