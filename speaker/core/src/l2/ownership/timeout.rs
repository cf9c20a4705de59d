//! What a deadline means.

use std::net::IpAddr;
use std::time::Instant;

use super::state::State;
use super::{CAREFUL, Gave, Ownership};

impl Ownership {
    /// The deadline of one address has passed.
    pub(super) fn timeout(&mut self, now: Instant, ip: IpAddr) {
        let Self { around, entries, book, .. } = self;
        let Some(entry) = entries.get_mut(&ip) else { return };
        match entry.state {
            State::Probing => {
                entry.rounds = entry.rounds.saturating_sub(1);
                if entry.rounds > 0 {
                    entry.probe(around, book, now, ip);
                } else {
                    entry.announce(book, ip);
                }
            }
            State::Parked => {
                entry.rounds = 1;
                entry.probe(around, book, now, ip);
            }
            State::Waiting => {
                if entry.patience().is_some_and(|end| end <= now) {
                    // The holder is behind us, and yields when it hears us.
                    entry.announce(book, ip);
                } else {
                    // It may have stopped for a reason that no decision shows.
                    entry.rounds = CAREFUL;
                    entry.probe(around, book, now, ip);
                }
            }
            State::Announcing => {
                // Only a conflict has a deadline here.
                let quiet = around.settings.conflict_quiet;
                let over = entry.conflict.and_then(|conflict| conflict.last.checked_add(quiet));
                if over.is_none_or(|over| over <= now) && entry.conflict.take().is_some() {
                    book.conflict_over(ip);
                }
                entry.go_on(around, book, ip);
            }
            State::Asking => {
                entry.rounds = entry.rounds.saturating_sub(1);
                if entry.rounds > 0 {
                    entry.ask(book, now, ip);
                } else if entry.keeps(around) {
                    entry.go_on(around, book, ip);
                } else {
                    entry.hand_over(around, book, now, ip);
                }
            }
            State::HandingOver => self.give(now, ip, Gave::Unheard),
            State::Following => book.set_deadline(ip, &mut entry.deadline, None),
        }
    }
}
