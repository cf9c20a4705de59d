//! What a status shows, what it should show, and the difference.

use std::net::IpAddr;

use patina_crds::keys;

/// Reason of the condition Allocated while the addresses of a Service change: the mark that one is about to be added.
pub const CHANGING: &str = "Changing";
/// Reason of the condition Allocated that a new leader writes before it gives anything.
pub const LEADER_CHANGED: &str = "LeaderChanged";

/// What a Service's status should show. Without addresses and conditions: nothing of ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// In this order, which is that of the status.
    pub addresses: Vec<IpAddr>,
    /// Where they come from.
    pub pool: Option<String>,
    /// Of the types that we write; those that are missing here are taken away.
    pub conditions: Vec<Condition>,
}

/// A condition to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// One of ours ([`keys::CONDITION_ALLOCATED`], [`keys::CONDITION_ANNOUNCED`]).
    pub type_: &'static str,
    /// True or False.
    pub status: bool,
    /// One word.
    pub reason: &'static str,
    /// A sentence.
    pub message: String,
}

/// What a Service's status says now, as far as we write it, and what a conditional write needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// `metadata.uid`
    pub uid: String,
    /// `metadata.resourceVersion`
    pub resource_version: String,
    /// `status.loadBalancer.ingress`
    pub ingress: Vec<Ingress>,
    /// The annotation that names the pool.
    pub pool: Option<String>,
    /// Conditions of the types that we write.
    pub ours: Vec<SeenCondition>,
    /// Conditions of others, to be kept as they are.
    pub foreign: Vec<SeenCondition>,
}

/// An entry of `status.loadBalancer.ingress`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ingress {
    /// `None`: it has none, or one that is no address.
    pub ip: Option<IpAddr>,
    /// Exactly as we write it: the address with ipMode VIP, nothing else.
    pub as_we_write: bool,
}

/// A condition as it stands in a status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeenCondition {
    /// `type`
    pub type_: String,
    /// True, False or Unknown.
    pub status: String,
    /// One word.
    pub reason: String,
    /// A sentence.
    pub message: String,
    /// `lastTransitionTime` (RFC 3339); `None`: now, by the clock of who writes it.
    pub since: Option<String>,
    /// `observedGeneration`
    pub observed_generation: Option<i64>,
}

/// What is to be written; what is `None` stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// The whole list.
    pub addresses: Option<Vec<IpAddr>>,
    /// The annotation, or that it goes.
    pub pool: Option<Option<String>>,
    /// The whole list, those of others included: a merge patch replaces it.
    pub conditions: Option<Vec<SeenCondition>>,
}

impl Observed {
    /// The addresses that it shows.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.ingress.iter().filter_map(|entry| entry.ip)
    }

    pub(super) fn shows(&self, ip: IpAddr) -> bool {
        self.addresses().any(|shown| shown == ip)
    }

    /// Whether a leader that takes over can see that a patch may be on its way that adds an address: none is shown, or
    /// the mark is.
    #[must_use]
    pub fn may_gain(&self) -> bool {
        self.addresses().next().is_none()
            || self.ours.iter().any(|seen| seen.type_ == keys::CONDITION_ALLOCATED && seen.reason == CHANGING)
    }

    /// Versions of one cluster's objects grow; where they are not numbers nothing is older.
    pub(super) fn is_older_than(&self, other: &Self) -> bool {
        let number = |observed: &Self| observed.resource_version.parse::<u64>().ok();
        matches!((number(self), number(other)), (Some(a), Some(b)) if a < b)
    }
}

impl Desired {
    /// What has to be written so that `observed` shows this; `None`: it does.
    #[must_use]
    pub fn change(&self, observed: &Observed) -> Option<Change> {
        let change = Change {
            addresses: (!self.is_in(&observed.ingress)).then(|| self.addresses.clone()),
            pool: (observed.pool != self.pool).then(|| self.pool.clone()),
            conditions: self.conditions_for(observed),
        };
        (change != Change::default()).then_some(change)
    }

    /// The next step towards this. An address is added only to a Service that shows none of those that it gives up,
    /// and that either shows none at all or carries the mark: see [`super`].
    pub(super) fn step(&self, observed: &Observed) -> Step {
        let adds = self.addresses.iter().any(|ip| !observed.shows(*ip));
        let gives_up = observed.addresses().any(|ip| !self.addresses.contains(&ip));
        if !adds || (observed.may_gain() && !gives_up) {
            return Step { desired: None, adds };
        }
        let kept: Vec<IpAddr> = self.addresses.iter().copied().filter(|ip| observed.shows(*ip)).collect();
        let texts: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
        let condition = Condition {
            type_: keys::CONDITION_ALLOCATED,
            status: !kept.is_empty(),
            reason: CHANGING,
            message: format!("about to change to {}", texts.join(", ")),
        };
        let others = self.conditions.iter().filter(|c| c.type_ != keys::CONDITION_ALLOCATED).cloned();
        let pool = if kept.is_empty() { None } else { observed.pool.clone() };
        let conditions = std::iter::once(condition).chain(others).collect();
        Step { desired: Some(Self { addresses: kept, pool, conditions }), adds: false }
    }

    fn is_in(&self, ingress: &[Ingress]) -> bool {
        ingress.len() == self.addresses.len()
            && ingress
                .iter()
                .zip(&self.addresses)
                .all(|(entry, ip)| entry.as_we_write && entry.ip == Some(*ip))
    }

    fn conditions_for(&self, observed: &Observed) -> Option<Vec<SeenCondition>> {
        let same = observed.ours.len() == self.conditions.len()
            && self.conditions.iter().all(|wanted| observed.ours.iter().any(|seen| wanted.is(seen)));
        if same {
            return None;
        }
        let ours = self.conditions.iter().map(|wanted| wanted.after(&observed.ours));
        Some(observed.foreign.iter().cloned().chain(ours).collect())
    }
}

/// The next write on the way to what is desired.
pub(super) struct Step {
    /// `None`: what is desired itself.
    pub(super) desired: Option<Desired>,
    /// It shows an address that the Service does not show yet.
    pub(super) adds: bool,
}

impl Condition {
    fn status_text(&self) -> &'static str {
        if self.status { "True" } else { "False" }
    }

    fn is(&self, seen: &SeenCondition) -> bool {
        seen.type_ == self.type_
            && seen.status == self.status_text()
            && seen.reason == self.reason
            && seen.message == self.message
    }

    /// As it is written: with the date of the one before if that says the same.
    fn after(&self, before: &[SeenCondition]) -> SeenCondition {
        let before = before.iter().find(|seen| seen.type_ == self.type_);
        SeenCondition {
            type_: self.type_.to_owned(),
            status: self.status_text().to_owned(),
            reason: self.reason.to_owned(),
            message: self.message.clone(),
            since: before
                .filter(|seen| seen.status == self.status_text())
                .and_then(|seen| seen.since.clone()),
            observed_generation: None,
        }
    }
}

/// The write that changes nothing but the version of a Service, and a condition that says so.
pub(super) fn fence(observed: &Observed, message: String) -> Change {
    let condition = Condition {
        type_: keys::CONDITION_ALLOCATED,
        status: observed.addresses().next().is_some(),
        reason: LEADER_CHANGED,
        message,
    };
    let others = observed.ours.iter().filter(|seen| seen.type_ != keys::CONDITION_ALLOCATED);
    let all = observed.foreign.iter().chain(others).cloned();
    Change { conditions: Some(all.chain([condition.after(&observed.ours)]).collect()), ..Change::default() }
}
