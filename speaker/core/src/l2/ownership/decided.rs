//! From one decision to the next.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use patina_crds::config::Failback;

use super::state::{Entry, Rank, State, follows, recent};
use super::{ASKS, Gave, Ownership};
use crate::intent::L2Announcement;
use crate::l2::duty::Mode;

impl Ownership {
    pub(super) fn decided(&mut self, now: Instant, wanted: Arc<BTreeMap<IpAddr, L2Announcement>>) {
        let before = self.decided.replace(Arc::clone(&wanted)).unwrap_or_default();
        // Both are sorted: one walk over the two.
        let mut old = before.iter().peekable();
        for (ip, new) in wanted.iter() {
            while let Some((gone, _)) = old.next_if(|(ip_before, _)| *ip_before < ip) {
                self.gone(*gone);
            }
            let known = old.next_if(|(ip_before, _)| *ip_before == ip).map(|(_, known)| known);
            if !known.is_some_and(|known| same(known, new)) {
                self.changed(now, *ip, known, new);
            }
        }
        for (gone, _) in old {
            self.gone(*gone);
        }
    }

    /// An address that was not decided to be ours, nor a candidate's, any more.
    fn gone(&mut self, ip: IpAddr) {
        // One that leaves is no candidate, and answers until its successors are heard.
        let handed = self.entries.get(&ip).is_some_and(|entry| entry.state == State::HandingOver);
        if !(self.around.leaving && handed) {
            self.drop_entry(ip, Gave::Withdrawn);
        }
    }

    fn changed(&mut self, now: Instant, ip: IpAddr, known: Option<&L2Announcement>, new: &L2Announcement) {
        if !self.entries.contains_key(&ip) {
            let wants = new.leads || follows(new, &self.around.node);
            if self.around.leaving || !wants {
                return;
            }
            self.entries.insert(ip, Entry::new(now, new));
        }
        let Self { around, entries, book, .. } = self;
        let Some(entry) = entries.get_mut(&ip) else { return };
        let led = known.is_some_and(|known| known.leads);
        if new.leads && !led {
            entry.led_since = now;
        }
        entry.take(new);
        book.touched.insert(ip);
        if around.leaving {
            return;
        }
        match (entry.state, new.leads) {
            (State::Following, true) => match (known, new.failback) {
                (None, _) => entry.start_probing(around, book, now, ip),
                (Some(_), Failback::Immediate) => entry.announce(book, ip),
                // Who led was not heard. It may hold, or have had the news that it does not lead before it began.
                (Some(known), _)
                    if entry.holder.is_none()
                        && known.order.first().is_some_and(|leader| entry.may_keep(leader)) =>
                {
                    entry.start_probing(around, book, now, ip);
                }
                (Some(_), _) => entry.wait_or_announce(around, book, now, ip),
            },
            (State::Waiting, true) => entry.wait_or_announce(around, book, now, ip),
            (State::HandingOver | State::Asking, true) => entry.announce(book, ip),
            (State::Announcing, true) => {
                // It asked before we knew it: it is answered now.
                let longest = around.settings.longest_handover;
                let heard = entry.holder.take_if(|(_, at)| recent(now, Some(*at), longest));
                if heard.is_some_and(|(node, _)| entry.rank(around, &node) == Rank::Behind) {
                    entry.contradict(book, now, ip);
                }
            }
            (State::Probing, true) => {
                // It was heard before membership knew it again.
                let holder = entry.holder.as_ref().filter(|_| entry.put_off.is_some());
                if holder.is_some_and(|(holder, _)| entry.rank(around, holder) == Rank::Behind) {
                    entry.held(around, book, now, ip, Rank::Behind);
                }
            }
            (State::Parked, true) => {}

            (State::Announcing, false) => {
                if entry.lists(&around.node) {
                    entry.rounds = ASKS;
                    entry.ask(book, now, ip);
                } else {
                    // It is not for us to say that we have it.
                    entry.hand_over(around, book, now, ip);
                }
            }
            // Failback is not immediate any more: whoever leads waits for us.
            (State::HandingOver, false) if entry.keeps(around) => {
                entry.rounds = ASKS;
                entry.ask(book, now, ip);
            }
            (State::HandingOver | State::Asking, false) => {}
            (State::Following | State::Probing | State::Parked | State::Waiting, false) => {
                if follows(new, &around.node) {
                    entry.end(book, ip, Gave::Withdrawn);
                    entry.enter(book, ip, State::Following, None);
                } else {
                    self.drop_entry(ip, Gave::Withdrawn);
                }
            }
        }
    }
}

impl Entry {
    /// We lead and do not answer; somebody may.
    pub(super) fn wait_or_announce(
        &mut self,
        around: &super::Around,
        book: &mut super::Book,
        now: Instant,
        ip: IpAddr,
    ) {
        debug_assert!(self.mode() < Mode::Answer);
        let held = self.holder.as_ref().is_some_and(|(holder, _)| self.may_keep(holder));
        if held && self.patience().is_none_or(|end| end > now) {
            self.wait(around, book, now, ip);
        } else {
            self.announce(book, ip);
        }
    }
}

/// Whether nothing that matters here changed (the Services of an address do not).
fn same(known: &L2Announcement, new: &L2Announcement) -> bool {
    known.leads == new.leads
        && known.failback == new.failback
        && known.interfaces == new.interfaces
        && known.order == new.order
        && known.keepers == new.keepers
}
