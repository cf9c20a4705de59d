//! What a client heard on the wire, and what follows from it. No sockets and no clock here.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::{Duration, SystemTime};

use crate::neighbour::Mac;

/// How a station said that it has an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum How {
    /// It answered our request.
    Reply,
    /// It announced the address unasked (gratuitous ARP, as request or as reply).
    Gratuitous,
}

/// A frame in which a station said that it has an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    /// When the kernel received it.
    pub at: SystemTime,
    /// The address.
    pub ip: Ipv4Addr,
    /// The sender's hardware address in the ARP message.
    pub mac: Mac,
    /// How.
    pub how: How,
}

/// A question that was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// Just before it was sent.
    pub at: SystemTime,
    /// About which address.
    pub ip: Ipv4Addr,
}

/// Questions and what was heard, each in the order of time.
#[derive(Debug, Clone, Default)]
pub struct Timeline {
    /// What was asked.
    pub asked: Vec<Asked>,
    /// What was heard.
    pub heard: Vec<Heard>,
}

/// An address changed hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// Which address.
    pub ip: Ipv4Addr,
    /// Who answered before.
    pub from: Mac,
    /// Who answers now.
    pub to: Mac,
    /// The first answer of the new one.
    pub at: SystemTime,
    /// The longest time, within the [`LOOK_BACK`] before, in which the old one answered none of our questions.
    pub silence: Duration,
}

/// How far back a silence of the old owner explains a change: several times what a detection may take.
pub const LOOK_BACK: Duration = Duration::from_secs(2);

impl Timeline {
    /// The first reply about `ip` that was received at `since` or later and came from another than `than`.
    #[must_use]
    pub fn first_by_other(&self, ip: Ipv4Addr, since: SystemTime, than: Mac) -> Option<Heard> {
        self.replies(ip).find(|heard| heard.at >= since && heard.mac != than).copied()
    }

    /// Replies about `ip`.
    pub fn replies(&self, ip: Ipv4Addr) -> impl Iterator<Item = &Heard> {
        self.heard.iter().filter(move |heard| heard.ip == ip && heard.how == How::Reply)
    }

    /// The questions about `ip`, asked at `since` or later, that more than one station answered. A reply belongs to the
    /// last question before it.
    #[must_use]
    pub fn answered_by_two(&self, ip: Ipv4Addr, since: SystemTime) -> Vec<SystemTime> {
        let asked: Vec<SystemTime> =
            self.asked.iter().filter(|a| a.ip == ip && a.at >= since).map(|a| a.at).collect();
        let mut replies = self.replies(ip).skip_while(|heard| heard.at < since).peekable();
        let mut doubled = Vec::new();
        for (i, at) in asked.iter().enumerate() {
            let next = asked.get(i + 1);
            let mut macs = BTreeSet::new();
            while let Some(heard) = replies.next_if(|heard| next.is_none_or(|next| heard.at < *next)) {
                macs.insert(heard.mac);
            }
            if macs.len() > 1 {
                doubled.push(*at);
            }
        }
        doubled
    }

    /// The longest time between `from` and `to` without any reply about `ip`.
    #[must_use]
    pub fn longest_silence(&self, ip: Ipv4Addr, from: SystemTime, to: SystemTime) -> Duration {
        longest_gap(self.replies(ip).map(|heard| heard.at), from, to)
    }

    /// Every change of who answers for `ip`. Two that answer at the same time are one change, to the one that goes on.
    #[must_use]
    pub fn changes(&self, ip: Ipv4Addr) -> Vec<Change> {
        let replies: Vec<&Heard> = self.replies(ip).collect();
        let mut changes = Vec::new();
        let Some(first) = replies.first() else { return changes };
        let (mut owner, mut since) = (first.mac, first.at);
        for (i, reply) in replies.iter().enumerate() {
            let old_goes_on = || replies.iter().skip(i + 1).find(|r| r.mac == owner);
            if reply.mac == owner {
                continue;
            }
            // The old one still answers after this: not changed yet, unless it was silent for long in between.
            if let Some(again) = old_goes_on()
                && gap(reply.at, again.at) < SETTLED
                && replies.iter().skip(i + 1).take_while(|r| r.at < again.at).all(|r| r.mac == reply.mac)
            {
                continue;
            }
            let from = reply.at.checked_sub(LOOK_BACK).unwrap_or(SystemTime::UNIX_EPOCH).max(since);
            let silence = longest_gap(
                replies.iter().filter(|r| r.mac == owner && r.at < reply.at).map(|r| r.at),
                from,
                reply.at,
            );
            changes.push(Change { ip, from: owner, to: reply.mac, at: reply.at, silence });
            (owner, since) = (reply.mac, reply.at);
        }
        changes
    }
}

/// An owner that has not answered for so long, while another has, is the owner no more.
const SETTLED: Duration = Duration::from_millis(30);

/// `later - earlier`, 0 when it is the other way round.
#[must_use]
pub fn gap(earlier: SystemTime, later: SystemTime) -> Duration {
    later.duration_since(earlier).unwrap_or_default()
}

fn longest_gap(times: impl Iterator<Item = SystemTime>, from: SystemTime, to: SystemTime) -> Duration {
    let mut last = from;
    let mut longest = Duration::ZERO;
    for at in times.filter(|at| *at >= from && *at <= to) {
        longest = longest.max(gap(last, at));
        last = at;
    }
    longest.max(gap(last, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    const IP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const A: Mac = [2, 0, 0, 0, 0, 0xa];
    const B: Mac = [2, 0, 0, 0, 0, 0xb];

    fn at(ms: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1000) + Duration::from_millis(ms)
    }

    fn timeline(asked: impl IntoIterator<Item = u64>, heard: &[(u64, Mac)]) -> Timeline {
        let asked = asked.into_iter().map(|ms| Asked { at: at(ms), ip: IP }).collect();
        let heard = heard.iter().map(|&(ms, mac)| Heard { at: at(ms), ip: IP, mac, how: How::Reply });
        Timeline { asked, heard: heard.collect() }
    }

    #[test]
    fn the_first_answer_by_another_is_after_the_kill() {
        let line = timeline([], &[(1, B), (10, A), (20, A), (320, B)]);
        assert_eq!(line.first_by_other(IP, at(5), A).unwrap().at, at(320));
        assert_eq!(line.first_by_other(IP, at(400), A), None);
    }

    #[test]
    fn questions_that_two_answered_are_counted_once() {
        let line = timeline([0, 10, 20, 30], &[(1, A), (11, A), (12, B), (21, B), (22, A), (23, A), (31, B)]);
        assert_eq!(line.answered_by_two(IP, at(0)), [at(10), at(20)]);
        assert_eq!(line.answered_by_two(IP, at(15)), [at(20)]);
    }

    #[test]
    fn silence_reaches_to_the_edges() {
        let line = timeline([], &[(10, A), (20, A), (90, B)]);
        assert_eq!(line.longest_silence(IP, at(0), at(100)), Duration::from_millis(70));
        assert_eq!(line.longest_silence(IP, at(0), at(200)), Duration::from_millis(110));
    }

    #[test]
    fn a_change_knows_how_long_the_old_one_was_silent() {
        let line = timeline([], &[(0, A), (10, A), (20, A), (300, B), (310, B)]);
        let [change] = line.changes(IP)[..] else { panic!("{:?}", line.changes(IP)) };
        assert_eq!((change.from, change.to, change.at), (A, B, at(300)));
        assert_eq!(change.silence, Duration::from_millis(280));
    }

    #[test]
    fn who_has_just_become_the_owner_was_not_silent_before_that() {
        let line = timeline([], &[(0, A), (500, B), (510, B), (520, B), (530, A), (540, A)]);
        let silences: Vec<Duration> = line.changes(IP).iter().map(|change| change.silence).collect();
        assert_eq!(silences, [500, 10].map(Duration::from_millis));
    }

    #[test]
    fn a_handover_in_which_both_answer_is_one_change() {
        let line = timeline([], &[(0, A), (10, A), (20, A), (21, B), (30, A), (31, B), (41, B), (51, B)]);
        let [change] = line.changes(IP)[..] else { panic!("{:?}", line.changes(IP)) };
        assert_eq!((change.from, change.to), (A, B));
        assert!(change.silence <= Duration::from_millis(11), "{change:?}");
    }

    #[test]
    fn an_owner_that_was_silent_woke_up_and_was_replaced_was_silent() {
        let mut heard = vec![(0, A), (10, A), (260, A), (261, A), (265, B)];
        heard.extend((27..40).map(|i| (i * 10, B)));
        let line = timeline([], &heard);
        let [change] = line.changes(IP)[..] else { panic!("{:?}", line.changes(IP)) };
        assert_eq!(change.silence, Duration::from_millis(250));
    }
}
