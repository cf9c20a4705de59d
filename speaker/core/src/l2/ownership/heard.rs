//! What another station says of an address of ours.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::state::{Conflict, Rank, State, recent};
use super::{Gave, HINT_INTERVAL, Output, Ownership};
use crate::l2::duty::{Claim, ClaimKind};
use crate::l2::wire::Mac;

impl Ownership {
    pub(super) fn heard(&mut self, now: Instant, claim: &Claim) {
        let entry = self.entries.get(&claim.ip);
        if !entry.is_some_and(|entry| entry.interfaces.contains(&claim.ifindex)) {
            return;
        }
        // Whose a MAC is cannot be known before the speakers are.
        let Some(stations) = &self.around.stations else { return };
        match stations.get(&claim.mac).cloned() {
            Some(node) => self.heard_ours(now, claim, &node),
            None => self.heard_foreign(now, *claim),
        }
    }

    /// One of our speakers has it. Never a conflict.
    fn heard_ours(&mut self, now: Instant, claim: &Claim, node: &Arc<str>) {
        let missed = self.around.missed.contains(node);
        if claim.kind == ClaimKind::Probe {
            // It asks, as it should, and whoever holds the address answers.
            if missed {
                self.hint(now, node);
            }
            return;
        }
        let Self { around, entries, book, .. } = self;
        let ip = claim.ip;
        let Some(entry) = entries.get_mut(&ip) else { return };
        let rank = entry.rank(around, node);
        entry.holder = Some((Arc::clone(node), now));
        match (entry.state, rank) {
            (State::Announcing | State::Asking, Rank::Ahead) => {
                self.give(now, ip, Gave::Heard(Arc::clone(node)))
            }
            (State::Announcing | State::Asking, Rank::Behind) => entry.contradict(book, now, ip),
            (State::HandingOver, Rank::Ahead) if claim.kind == ClaimKind::Announcement => {
                self.give(now, ip, Gave::Heard(Arc::clone(node)));
            }
            // One that came after the last decision that we had.
            (State::HandingOver, Rank::Unlisted)
                if around.leaving && claim.kind == ClaimKind::Announcement =>
            {
                self.give(now, ip, Gave::Heard(Arc::clone(node)));
            }
            (State::Announcing | State::Asking | State::HandingOver, Rank::Unlisted) => self.hint(now, node),
            // We have come back to a segment, and membership has not: it does not know us either, and would not yield.
            (State::Probing, Rank::Unlisted) if missed && entry.may_put_off(now) => self.hint(now, node),
            (State::Probing, _) => entry.held(around, book, now, ip, rank),
            (State::Following | State::Waiting | State::Parked | State::HandingOver, _) => {}
        }
    }

    /// A host that is none of ours has it, or wants it.
    fn heard_foreign(&mut self, now: Instant, claim: Claim) {
        let Self { around, entries, book, .. } = self;
        let ip = claim.ip;
        let Some(entry) = entries.get_mut(&ip) else { return };
        match (entry.state, claim.kind) {
            // RFC 5227 2.1.1: any ARP packet "where the packet's 'sender IP address' is the address being probed for", and
            // another host's probe for it, too. RFC 4862 5.4.3 and 5.4.4 say the same of solicitation and advertisement.
            (State::Probing, _) => entry.park(around, book, now, (ip, claim)),
            // RFC 5227 2.4 (c): one announcement as defence, and not another one within DEFEND_INTERVAL; "inform an administrator
            // of the problem". (a) and (b), which end in giving up, are not for a Service (see the module).
            (State::Announcing | State::Asking, ClaimKind::Announcement | ClaimKind::Use) => {
                let defended = entry.defended.map(|(at, _)| at);
                let again = recent(now, defended, around.settings.defend_interval);
                if !again {
                    entry.defended = Some((now, claim.mac));
                    entry.defend(book, ip);
                    book.outputs.push_back(Output::Defended(claim));
                }
                if let Some(conflict) = &mut entry.conflict {
                    conflict.last = now;
                } else if again {
                    entry.conflict = Some(Conflict { claim, last: now });
                    book.contested.insert(ip);
                    book.outputs.push_back(Output::Conflict { ip, claim, in_use: true });
                    if entry.state == State::Announcing {
                        entry.go_on(around, book, ip);
                    }
                }
            }
            // Answered, as any question; or not ours to judge.
            _ => {}
        }
    }

    /// Whom we took for a stranger may be one of us.
    pub(super) fn stations(&mut self, now: Instant, stations: Arc<BTreeMap<Mac, Arc<str>>>) {
        let contested: Vec<_> = self.book.contested.iter().copied().collect();
        let Self { around, entries, book, .. } = self;
        for ip in contested {
            let Some(entry) = entries.get_mut(&ip) else { continue };
            let Some(conflict) = entry.conflict.filter(|conflict| stations.contains_key(&conflict.claim.mac))
            else {
                continue;
            };
            entry.conflict = None;
            book.conflict_over(ip);
            match (entry.state, stations.get(&conflict.claim.mac)) {
                (State::Parked | State::Probing, Some(_)) => {
                    entry.start_probing(around, book, now, ip);
                }
                (State::Announcing, _) => entry.go_on(around, book, ip),
                _ => {}
            }
        }
        // Our one defence against it may be lost, and none follows against one of ours: who heard that one shall hear us.
        let known = |at: Option<(Instant, Mac)>| {
            let lately = at.filter(|(at, _)| recent(now, Some(*at), around.settings.defend_interval));
            lately.is_some_and(|(_, mac)| stations.contains_key(&mac))
        };
        for (ip, entry) in entries.iter_mut().filter(|(_, entry)| known(entry.defended)) {
            entry.defended = None;
            if entry.leads && entry.state == State::Announcing {
                entry.contradict(book, now, *ip);
            }
        }
        self.around.stations = Some(stations);
    }

    /// Membership is told that a node lives, now and then.
    fn hint(&mut self, now: Instant, node: &Arc<str>) {
        if !recent(now, self.hinted.get(node).copied(), HINT_INTERVAL) {
            self.hinted.insert(Arc::clone(node), now);
            self.book.outputs.push_back(Output::Hint(Arc::clone(node)));
        }
    }
}
