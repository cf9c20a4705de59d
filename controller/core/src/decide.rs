//! One Service, one decision: the order and the precedence of api.md 3.3.

use std::net::IpAddr;

use patina_crds::config::Config;
use patina_crds::net::Family;
use patina_crds::selector::Labels;

use crate::allocator::{Allocator, Refused, Sharing};
use crate::reason::{Ignored, Lost, Notice, Reason};
use crate::request::{self, Request, RequestError, Wishes, describe_families};
use crate::view::{FamilyPolicy, ServiceView};

/// What applies to all Services; from flags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// `--lb-class`: `None` serves only Services without a class, otherwise only Services with exactly this one.
    pub class: Option<String>,
    /// Never fall back to open pools when the pools pinned to a Service are full.
    pub strict_pinning: bool,
}

/// What to do about a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It gets these addresses (new ones, or one more).
    Assign {
        /// In the order of the status.
        addresses: Vec<IpAddr>,
        /// Where they come from.
        pool: String,
    },
    /// It keeps what it has.
    Keep {
        /// In the order of the status.
        addresses: Vec<IpAddr>,
        /// Where they come from.
        pool: String,
    },
    /// Not ours any more: whatever we wrote into it goes.
    Release,
    /// It should have an address and has none.
    Wait(Reason),
    /// Not ours: untouched.
    Ignore(Ignored),
}

/// A decision and what is to be told beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What to do.
    pub decision: Decision,
    /// Why the addresses held before are given up, if they are.
    pub lost: Option<Lost>,
    /// In the order they were found.
    pub notices: Vec<Notice>,
}

impl Outcome {
    fn plain(decision: Decision) -> Self {
        Self { decision, lost: None, notices: Vec::new() }
    }
}

/// Decides about one Service. `allocator` must be configured with `config`; it is up to date with the decision
/// afterwards. What the allocator remembers wins over what the status says: a status may be late, memory is not.
pub fn decide(
    service: &ServiceView,
    config: &Config,
    namespace_labels: &Labels,
    policy: &Policy,
    allocator: &mut Allocator,
) -> Outcome {
    if !service.is_load_balancer {
        allocator.release(&service.id);
        let ignore = Decision::Ignore(Ignored::NotLoadBalancer);
        return Outcome::plain(if service.marked { Decision::Release } else { ignore });
    }
    if service.class != policy.class {
        allocator.release(&service.id);
        return Outcome::plain(Decision::Ignore(Ignored::OtherClass));
    }
    if let Some(reason) = blocked(service, config) {
        let had = allocator.release(&service.id).is_some() || !service.held.is_empty();
        let lost = had.then(|| Lost::Blocked(reason.clone()));
        return Outcome { decision: Decision::Wait(reason), lost, notices: Vec::new() };
    }
    let wishes = Wishes::read(service);
    let notices = wishes.deprecated.iter().cloned().map(Notice::DeprecatedAnnotation).collect();
    let sharing = Sharing::of(service, &wishes.shared_key);
    let request = request::check(service, &wishes, config, namespace_labels);
    Case { service, config, namespace_labels, policy, allocator, sharing, notices }.decide(request)
}

/// Reasons for which nobody has an address, whatever it asks for.
fn blocked(service: &ServiceView, config: &Config) -> Option<Reason> {
    if config.pools.is_empty() {
        return Some(Reason::NoPools);
    }
    match (service.family_policy, service.cluster_families().len()) {
        (_, 0) => Some(Reason::NoClusterIp),
        (FamilyPolicy::RequireDual, 1) => Some(Reason::NotEnoughClusterIps),
        _ => None,
    }
}

struct Case<'a> {
    service: &'a ServiceView,
    config: &'a Config,
    namespace_labels: &'a Labels,
    policy: &'a Policy,
    allocator: &'a mut Allocator,
    sharing: Sharing,
    notices: Vec<Notice>,
}

type Given = (Vec<IpAddr>, String);

impl Case<'_> {
    fn decide(mut self, request: Result<Request, RequestError>) -> Outcome {
        let id = &self.service.id;
        let remembered = self.allocator.assignment(id).map(|assignment| assignment.addresses.clone());
        let held = remembered.unwrap_or_else(|| self.service.held.clone());
        let mut lost = None;
        if !held.is_empty() {
            match self.hold(&held, &request) {
                Ok((addresses, pool)) => {
                    let same = addresses == held;
                    return self.outcome(
                        if same {
                            Decision::Keep { addresses, pool }
                        } else {
                            Decision::Assign { addresses, pool }
                        },
                        None,
                    );
                }
                Err(why) => {
                    self.allocator.release(id);
                    lost = Some(why);
                }
            }
        }
        let decision = match request.map_err(Reason::Request).and_then(|request| self.give(&request)) {
            Ok((addresses, pool)) => Decision::Assign { addresses, pool },
            Err(reason) => Decision::Wait(reason),
        };
        self.outcome(decision, lost)
    }

    fn outcome(self, decision: Decision, lost: Option<Lost>) -> Outcome {
        Outcome { decision, lost, notices: self.notices }
    }

    /// Steps 6 to 10: what of `held` the Service keeps, and what it gets in addition.
    fn hold(&mut self, held: &[IpAddr], request: &Result<Request, RequestError>) -> Result<Given, Lost> {
        let families = self.service.cluster_families();
        let mut addresses: Vec<IpAddr> = Vec::new();
        for ip in held.iter().filter(|ip| families.contains(&Family::of(**ip))) {
            if !addresses.iter().any(|other| Family::of(*other) == Family::of(*ip)) {
                addresses.push(*ip);
            }
        }
        if addresses.is_empty() {
            return Err(Lost::FamilyChanged);
        }
        let id = &self.service.id;
        let keepable = self.allocator.keepable(&addresses);
        if !keepable.is_empty() && keepable.len() < addresses.len() {
            addresses.retain(|ip| !keepable.contains(ip));
            self.notices.push(Notice::PartLost(addresses));
            addresses = keepable;
        }
        let pool = self.allocator.assign(id, &addresses, &self.sharing).map_err(|refused| match refused {
            Refused::OutsideEveryPool(ip) => Lost::OutsideEveryPool(ip),
            Refused::DifferentPools(a, b) => Lost::DifferentPools(a, b),
            Refused::Taken { address, owner, clash } => Lost::Taken { address, owner, clash },
        })?;
        let surplus = surplus(&self.service.held);
        if !surplus.is_empty() {
            self.notices.push(Notice::SurplusAddresses(surplus));
        }
        if !self.permitted(&pool) {
            return Err(Lost::NotPermitted { pool });
        }
        match request {
            // Last good state: a wish that nobody can fulfil takes nothing away.
            Err(error) => {
                self.notices.push(Notice::KeptDespite(error.clone()));
                if self.service.family_policy != FamilyPolicy::RequireDual {
                    return Ok((addresses, pool));
                }
            }
            Ok(request) => {
                if let Some(wanted) = request.pool.as_ref().filter(|wanted| **wanted != pool) {
                    return Err(Lost::PoolRequested { pool: wanted.clone() });
                }
                if !request.addresses.is_empty() {
                    let same = request.addresses.len() == addresses.len()
                        && request.addresses.iter().all(|ip| addresses.contains(ip));
                    return if same { Ok((addresses, pool)) } else { Err(Lost::AddressRequested) };
                }
            }
        }
        self.complete(addresses, pool, &families)
    }

    /// Step 10: the address of the second family, from the same pool. It goes last, so that the first entry, by which
    /// the announcer is chosen, stays.
    fn complete(&mut self, addresses: Vec<IpAddr>, pool: String, families: &[Family]) -> Result<Given, Lost> {
        let has = |family: &Family| addresses.iter().any(|ip| Family::of(*ip) == *family);
        let missing: Vec<Family> = families.iter().filter(|family| !has(family)).copied().collect();
        if missing.is_empty() {
            return Ok((addresses, pool));
        }
        if let Some(more) =
            self.allocator.allocate(&self.service.id, &pool, &addresses, &missing, &self.sharing)
        {
            return Ok((more, pool));
        }
        if self.service.family_policy == FamilyPolicy::PreferDual {
            self.notices.push(Notice::NoSecondFamily { pool: pool.clone() });
            return Ok((addresses, pool));
        }
        Err(Lost::SecondFamilyMissing { pool })
    }

    /// Step 11: explicit addresses, else the requested pool, else pinned pools, else open ones.
    fn give(&mut self, request: &Request) -> Result<Given, Reason> {
        if !request.addresses.is_empty() {
            let assigned = self.allocator.assign(&self.service.id, &request.addresses, &self.sharing);
            return match assigned {
                Ok(pool) => Ok((request.addresses.clone(), pool)),
                Err(Refused::Taken { address, owner, clash }) => {
                    Err(Reason::AddressTaken { address, owner, clash })
                }
                // The request was checked against the same configuration: these cannot be, but have their sentence.
                Err(Refused::OutsideEveryPool(address)) => {
                    let pools = request::describe_pools(self.config);
                    Err(Reason::Request(RequestError::OutsideEveryPool { address, pools }))
                }
                Err(Refused::DifferentPools(a, b)) => {
                    Err(Reason::Request(RequestError::DifferentPools(a, b)))
                }
            };
        }
        if let Some(pool) = &request.pool {
            let pools = vec![pool.clone()];
            return self.first_of(&pools).ok_or_else(|| self.none_in(pools));
        }
        let (pinned, open) = self.allocator.automatic_pools();
        let pinned: Vec<String> = pinned.iter().filter(|pool| self.permitted(pool)).cloned().collect();
        let open = open.to_vec();
        if let Some(given) = self.first_of(&pinned) {
            return Ok(given);
        }
        if self.policy.strict_pinning && !pinned.is_empty() {
            return Err(self.none_in(pinned));
        }
        let Some((addresses, pool)) = self.first_of(&open) else {
            return Err(self.none_in([pinned, open].concat()));
        };
        if !pinned.is_empty() {
            self.notices.push(Notice::PinnedPoolsFull { pinned, pool: pool.clone() });
        }
        Ok((addresses, pool))
    }

    /// The first of `pools` that has what the Service's family policy wants most; then the next best.
    fn first_of(&mut self, pools: &[String]) -> Option<Given> {
        let families = self.service.cluster_families();
        let mut choices: Vec<Vec<Family>> = vec![families.clone()];
        if self.service.family_policy == FamilyPolicy::PreferDual && families.len() > 1 {
            let primary = self.service.families.first().copied().unwrap_or(Family::V4);
            let secondary = families.iter().copied().find(|family| *family != primary);
            choices.extend([Some(primary), secondary].into_iter().flatten().map(|family| vec![family]));
        }
        for choice in choices {
            for pool in pools {
                let given = self.allocator.allocate(&self.service.id, pool, &[], &choice, &self.sharing);
                if let Some(addresses) = given {
                    return Some((addresses, pool.clone()));
                }
            }
        }
        None
    }

    fn none_in(&self, pools: Vec<String>) -> Reason {
        if pools.is_empty() {
            return Reason::NoUsablePool { pools: self.config.pools.keys().cloned().collect() };
        }
        let needed = self.service.cluster_families();
        let families = describe_families(&needed);
        let has = |pool: &&String, family: &Family| self.allocator.has_family(pool, *family);
        let any_will_do = self.service.family_policy == FamilyPolicy::PreferDual;
        let fitting: Vec<String> = pools
            .iter()
            .filter(|pool| {
                if any_will_do {
                    needed.iter().any(|family| has(pool, family))
                } else {
                    needed.iter().all(|family| has(pool, family))
                }
            })
            .cloned()
            .collect();
        if fitting.is_empty() {
            Reason::NoPoolOfFamily { families, pools }
        } else {
            Reason::Exhausted { families, pools: fitting }
        }
    }

    fn permitted(&self, pool: &str) -> bool {
        self.config.pools.get(pool).is_some_and(|pool| {
            pool.allocation.permits(&self.service.id.namespace, self.namespace_labels, &self.service.labels)
        })
    }
}

/// Addresses of a status beyond the first of their family.
fn surplus(held: &[IpAddr]) -> Vec<IpAddr> {
    let is_first = |index: usize, ip: &IpAddr| {
        held.iter().position(|other| Family::of(*other) == Family::of(*ip)) == Some(index)
    };
    held.iter().enumerate().filter(|(index, ip)| !is_first(*index, ip)).map(|(_, ip)| *ip).collect()
}
