//! What people see: status objects, events, metrics, log.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use k8s_openapi::jiff::Timestamp;
use patina_runtime::events::{EventType, Published};
use patina_speaker_core::intent::{Intent, L2Announcement, Verdict};
use patina_speaker_core::l2::duty::Claim;
use patina_speaker_core::l2::ownership::{self, Gave, Output};
use patina_speaker_core::view::{InterfaceView, ServiceId};

use super::{LONGEST_REST, REST, Speaker, State};
use crate::conflicts::{self, Seen};
use crate::moves::Cause;
use crate::status::{ShownL2, Wanted};

impl Speaker {
    /// Tells what happened, and, when it is due, what is.
    pub(super) fn show(&mut self, state: &mut State, now: Instant) {
        while let Some(output) = state.ownership.poll_output() {
            self.tell(state, now, output);
        }
        self.show_conflicts(state);
        if !(state.stale && state.decided && state.show_at.is_none_or(|at| at <= now)) {
            return;
        }
        // Ten thousand addresses that end their probes one by one are not ten thousand looks at all of them.
        self.show_services(state);
        self.show_exports(&state.exported);
        let done = Instant::now();
        state.stale = false;
        state.show_at = Some(done + (done.duration_since(now) * REST).min(LONGEST_REST));
    }

    fn tell(&self, state: &mut State, now: Instant, output: Output) {
        match output {
            Output::Took(ip) => {
                tracing::debug!(%ip, "announcing");
                state.holding.insert(ip);
                state.stale = true;
            }
            Output::Gave(ip, why) => {
                match why {
                    Gave::Heard(node) => tracing::debug!(%ip, by = &*node, "handed over"),
                    Gave::Unheard => tracing::info!(%ip, "no longer answering; no successor was heard"),
                    Gave::Withdrawn => tracing::debug!(%ip, "withdrawn"),
                }
                state.holding.remove(&ip);
                state.stale = true;
            }
            Output::Hint(node) => {
                if let Some(members) = &self.members {
                    let _said_again_soon = members.hint.try_send(node.to_string());
                }
            }
            Output::Defended(claim) => {
                tracing::warn!(ip = %claim.ip, mac = mac(&claim), "a foreign host claims the address; defended");
            }
            Output::Conflict { ip, claim, in_use } => self.conflict(state, ip, &claim, in_use),
            Output::ConflictOver(ip) => {
                tracing::info!(%ip, "no foreign host claims the address any more");
                state.sightings.over(now, ip, &state.intent);
            }
        }
    }

    fn conflict(&self, state: &mut State, ip: IpAddr, claim: &Claim, in_use: bool) {
        let interface = state.interfaces.iter().find(|interface| interface.index == claim.ifindex);
        let Some(announcement) = state.intent.l2.get(&ip) else { return };
        let Some(service) = announcement.services.first().cloned() else { return };
        let (node, mac) = (&self.settings.node_name, mac(claim));
        let what = if in_use { "it is defended, and both answer" } else { "it is not announced" };
        let message =
            format!("{ip} is in use by another host on the network, MAC {mac}, as node {node} sees; {what}");
        for id in &announcement.services {
            self.publish(id, EventType::Warning, "AddressConflict", &message);
        }
        let seen = Seen {
            mac: claim.mac,
            interface: interface.map(|interface| interface.name.clone()).unwrap_or_default(),
            service,
            in_use,
            first: Timestamp::now(),
        };
        state.sightings.conflict(ip, seen);
    }

    fn show_conflicts(&self, state: &State) {
        self.metrics.conflicts.set(i64::try_from(state.sightings.count()).unwrap_or(i64::MAX));
        let owner = self.owner();
        self.conflicts.send_if_modified(|wanted| {
            let changed = *wanted.seen != *state.sightings.seen() || wanted.owner != owner;
            if changed {
                *wanted = conflicts::Wanted { seen: Arc::new(state.sightings.seen().clone()), owner };
            }
            changed
        });
    }

    /// Which Services are announced from here now, and since when, and why.
    fn show_services(&mut self, state: &mut State) {
        let mut services: BTreeMap<ServiceId, NameSet> = BTreeMap::new();
        let mut announced = Vec::with_capacity(state.holding.len());
        let mut names = Names { interfaces: &state.interfaces, all: Arc::default(), last: None };
        for ip in &state.holding {
            if state.ownership.state(*ip) != Some(ownership::State::Announcing) {
                continue; // being handed over: the successor shows it
            }
            let Some(announcement) = state.intent.l2.get(ip) else { continue };
            for id in &announcement.services {
                announced.push((id.clone(), *ip));
                let names = names.of(announcement, state.intent.verdicts.get(id));
                match services.entry(id.clone()) {
                    Entry::Vacant(entry) => drop(entry.insert(names)),
                    Entry::Occupied(entry) if *entry.get() == names => {}
                    Entry::Occupied(entry) => {
                        Arc::make_mut(entry.into_mut()).extend(names.iter().cloned());
                    }
                }
            }
        }
        let now = Timestamp::now();
        let mut shown = Vec::with_capacity(services.len());
        for (id, interfaces) in services {
            let entry = match state.shown.get(&id) {
                Some(before) => ShownL2 { interfaces, ..before.clone() },
                None => {
                    let cause = state.moves.take(&id);
                    self.took(&id, &cause, state.known.contains(&id));
                    let from = cause.predecessor().cloned();
                    ShownL2 { interfaces, since: now, cause: cause.word(), from }
                }
            };
            shown.push((id, entry));
        }
        let shown: BTreeMap<_, _> = shown.into_iter().collect();
        state.known.clear();
        if shown != *state.shown {
            state.shown = Arc::new(shown);
        }
        self.metrics.announced.set(i64::try_from(state.holding.len()).unwrap_or(i64::MAX));
        self.announced.set(announced.into_iter().collect());
        let wanted = Wanted { services: Arc::clone(&state.shown), owner: self.owner() };
        self.wanted.send_if_modified(|current| crate::watch::replace(current, wanted));
    }

    /// `known`: this node announced it before this process started, so that nothing changed for anybody.
    fn took(&self, id: &ServiceId, cause: &Cause, known: bool) {
        if known {
            return;
        }
        self.metrics.took(cause);
        let node = &self.settings.node_name;
        let message = format!("announcing from node {node:?} with protocol \"layer2\": {cause}");
        self.publish(id, EventType::Normal, "nodeAssigned", &message);
    }

    /// This node leads and cannot: nobody else will say so.
    pub(super) fn complain(&self, intent: &Intent) {
        for (id, verdict) in &intent.verdicts {
            for (ip, why) in &verdict.failed {
                let message = format!("cannot announce {ip}: {why}");
                self.publish(id, EventType::Warning, "announceFailed", &message);
            }
        }
    }

    fn publish(&self, id: &ServiceId, kind: EventType, reason: &str, message: &str) {
        let Some(service) = self.cluster.service_reference(id) else { return };
        if self.events.publish(&service, kind, reason, message) != Published::Same {
            tracing::info!(service = %id, event = reason, "{message}");
        }
    }

    pub(super) fn owner(&self) -> Option<crate::watch::PodIdentity> {
        let common = &self.settings.common;
        self.cluster.pod(&common.namespace, &common.pod_name)
    }
}

/// Names of interfaces.
type NameSet = Arc<BTreeSet<String>>;

/// Finds them, one list for all that have the same.
struct Names<'a> {
    interfaces: &'a [InterfaceView],
    /// All of them, which is told by naming none.
    all: NameSet,
    /// Of these indexes.
    last: Option<(Arc<BTreeSet<u32>>, NameSet)>,
}

impl Names<'_> {
    /// Of the interfaces on which an address is announced for a Service.
    fn of(&mut self, announcement: &L2Announcement, verdict: Option<&Arc<Verdict>>) -> NameSet {
        if let Some(verdict) = verdict.filter(|verdict| verdict.mine) {
            return Arc::clone(if verdict.all_interfaces { &self.all } else { &verdict.interfaces });
        }
        // Another leads, and waits for us (failback).
        if let Some((indexes, names)) = &self.last
            && Arc::ptr_eq(indexes, &announcement.interfaces)
        {
            return Arc::clone(names);
        }
        let ours = |interface: &&InterfaceView| announcement.interfaces.contains(&interface.index);
        let names = self.interfaces.iter().filter(ours).map(|interface| interface.name.clone());
        let names = Arc::new(names.collect());
        self.last = Some((Arc::clone(&announcement.interfaces), Arc::clone(&names)));
        names
    }
}

fn mac(claim: &Claim) -> String {
    claim.mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// What changed, for people.
pub(super) fn log(before: &Intent, after: &Intent) {
    for (id, verdict) in &after.verdicts {
        let old = before.verdicts.get(id);
        if let Some(why_not) = &verdict.why_not
            && old.is_none_or(|old| old.why_not.as_ref() != Some(why_not))
        {
            match old.is_some_and(|old| old.mine) {
                true => tracing::info!(service = %id, reason = why_not.reason(), "withdrawing: {why_not}"),
                false => {
                    tracing::debug!(service = %id, reason = why_not.reason(), "not announcing: {why_not}")
                }
            }
        }
    }
    for (id, _) in before.verdicts.iter().filter(|(id, old)| old.mine && !after.verdicts.contains_key(*id)) {
        tracing::info!(service = %id, reason = "serviceDeleted", "withdrawing: the Service is gone");
    }
}
