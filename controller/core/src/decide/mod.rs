//! One Service, one decision: the order and the precedence of api.md 3.3.

mod give;
mod hold;

use std::net::IpAddr;

use patina_crds::config::Config;
use patina_crds::net::Family;
use patina_crds::selector::Labels;

use crate::allocator::{Allocator, PoolId, Sharing};
use crate::reason::{Ignored, Lost, Notice, Reason};
use crate::request::{self, Request, RequestError, Wishes};
use crate::view::{FamilyPolicy, ServiceView};
use crate::waiting::{Lane, Queue, Turn, Want, turn};

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

/// What a decision is made by, besides the Service and who holds what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules<'a> {
    /// The allocator must be configured with it.
    pub(crate) config: &'a Config,
    /// Of the Service's namespace.
    pub(crate) namespace_labels: &'a Labels,
    pub(crate) policy: &'a Policy,
    /// Who waits, for whom something may be set aside.
    pub(crate) queue: &'a Queue,
}

/// Decides about one Service, and says what would help it if it has not all it needs. `allocator` is up to date with the
/// decision afterwards. What the allocator remembers wins over what the status says: a status may be late, memory is not.
pub(crate) fn decide(
    service: &ServiceView,
    rules: Rules<'_>,
    allocator: &mut Allocator,
) -> (Outcome, Option<Want>) {
    if !service.is_load_balancer {
        allocator.release(&service.id);
        let ignore = Decision::Ignore(Ignored::NotLoadBalancer);
        return (Outcome::plain(if service.marked { Decision::Release } else { ignore }), None);
    }
    if service.class != rules.policy.class {
        allocator.release(&service.id);
        return (Outcome::plain(Decision::Ignore(Ignored::OtherClass)), None);
    }
    if let Some(reason) = blocked(service, rules.config) {
        let had = allocator.release(&service.id).is_some() || !service.held.is_empty();
        let lost = had.then(|| Lost::Blocked(reason.clone()));
        return (Outcome { decision: Decision::Wait(reason), lost, notices: Vec::new() }, None);
    }
    let wishes = Wishes::read(service);
    let notices = wishes.deprecated.iter().cloned().map(Notice::DeprecatedAnnotation).collect();
    let sharing = Sharing::of(service, &wishes.shared_key);
    let remembered = allocator.assignment(&service.id).map(|assignment| assignment.addresses.clone());
    let held = remembered.unwrap_or_else(|| service.held.clone());
    let request = request::check(service, &wishes, &held, rules.config, rules.namespace_labels, allocator);
    let families = service.cluster_families();
    let case =
        Case { service, turn: turn(service), rules, allocator, sharing, families, notices, want: None };
    case.decide(&held, request)
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
    turn: Turn,
    rules: Rules<'a>,
    allocator: &'a mut Allocator,
    sharing: Sharing,
    /// Of its cluster IPs, in their order.
    families: Vec<Family>,
    notices: Vec<Notice>,
    want: Option<Want>,
}

/// Addresses, and the pool that they are from.
type Given = (Vec<IpAddr>, PoolId);

impl Case<'_> {
    fn decide(mut self, held: &[IpAddr], request: Result<Request, RequestError>) -> (Outcome, Option<Want>) {
        let mut lost = None;
        let said = self.notices.len();
        if !held.is_empty() {
            match self.hold(held, &request) {
                Ok((addresses, pool)) => {
                    self.tell_of_reservations(&addresses, &request);
                    let pool = self.allocator.name(pool).to_owned();
                    let decision = if addresses == held {
                        Decision::Keep { addresses, pool }
                    } else {
                        Decision::Assign { addresses, pool }
                    };
                    return self.outcome(decision, None);
                }
                Err(why) => {
                    self.allocator.release(&self.service.id);
                    // What would have been told about keeping it.
                    self.notices.truncate(said);
                    lost = Some(why);
                }
            }
        }
        let decision = match request.map_err(Reason::Request).and_then(|request| self.give(&request)) {
            Ok((addresses, pool)) => {
                let pool = self.allocator.name(pool).to_owned();
                Decision::Assign { addresses, pool }
            }
            Err(reason) => Decision::Wait(reason),
        };
        self.outcome(decision, lost)
    }

    fn outcome(self, decision: Decision, lost: Option<Lost>) -> (Outcome, Option<Want>) {
        (Outcome { decision, lost, notices: self.notices }, self.want)
    }

    fn permitted(&self, pool: PoolId) -> bool {
        self.allocator.allocation(pool).is_some_and(|allocation| {
            allocation.permits(&self.service.id.namespace, self.rules.namespace_labels, &self.service.labels)
        })
    }

    /// One family will do, if there is not more.
    fn any_will_do(&self) -> bool {
        self.service.family_policy == FamilyPolicy::PreferDual
    }

    /// An address of each of these families, in addition to `kept`; the last one of a pool may be somebody else's.
    fn allocate(&mut self, pool: PoolId, kept: &[IpAddr], families: &[Family]) -> Option<Vec<IpAddr>> {
        let leave = u128::from(self.rules.queue.set_aside(pool, &self.turn).is_some());
        self.allocator.allocate_in(&self.service.id, pool, kept, families, &self.sharing, leave)
    }

    /// Waits for an address of each of `families` from one of `pools`.
    fn want_automatic(&mut self, pools: Vec<PoolId>, families: &[Family]) {
        let mut families = families.to_vec();
        families.sort_unstable();
        let any = self.any_will_do();
        let own = self.allocator.kept_for(&self.service.id).next().map(|_| self.service.id.clone());
        let has_all =
            |pool: &&PoolId| families.iter().all(|family| self.allocator.has_family(**pool, *family));
        let door = (families.len() > 1 && !any).then(|| pools.iter().find(has_all).copied()).flatten();
        let lane = Lane { own, pools, families, any };
        self.want = Some(Want::Automatic { lane, sharing: self.sharing.clone(), door });
    }
}
