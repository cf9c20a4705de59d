//! Addresses that another node is about to announce: we answer for them until it has, or for a short while.
//!
//! Every speaker sees the same change of leader, but not at the same moment. If the old one fell silent at once, an
//! address would be dark until the new one has seen it too. Both answering for a moment costs nothing: either node
//! forwards.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use patina_speaker_core::intent::{Intent, L2Announcement};

/// How long at most. IPv6 takes all of it: unsolicited advertisements do not pass the kernel filter.
pub const LONGEST: Duration = Duration::from_secs(1);

/// What to answer for, and where.
pub type Addresses = BTreeMap<IpAddr, L2Announcement>;

/// The addresses of the last decision, and those that linger.
#[derive(Debug, Default)]
pub struct Handover {
    announced: Addresses,
    lingering: BTreeMap<IpAddr, (Instant, L2Announcement)>,
}

impl Handover {
    /// Takes a new decision and returns what to answer for: what it says, and what lingers.
    pub fn decide(&mut self, now: Instant, intent: &Intent) -> Addresses {
        let successors: BTreeSet<IpAddr> = intent
            .verdicts
            .values()
            .filter(|verdict| verdict.leader.is_some() && !verdict.mine)
            .flat_map(|verdict| verdict.addresses.iter().copied())
            .collect();
        for (ip, announcement) in std::mem::take(&mut self.announced) {
            if successors.contains(&ip) {
                self.lingering.entry(ip).or_insert((now + LONGEST, announcement));
            }
        }
        // Back with us, or nobody's any more: then there is nobody to wait for.
        let leads = |ip: &IpAddr| intent.l2.get(ip).is_some_and(|announcement| announcement.leads);
        self.lingering.retain(|ip, _| !leads(ip) && successors.contains(ip));
        self.announced = intent.leading();
        self.addresses(now)
    }

    /// The successor announced it.
    pub fn heard(&mut self, ip: IpAddr) {
        self.lingering.remove(&ip);
    }

    /// What to answer for now.
    pub fn addresses(&mut self, now: Instant) -> Addresses {
        self.lingering.retain(|_, (until, _)| *until > now);
        let lingering = self.lingering.iter().map(|(ip, (_, announcement))| (*ip, announcement.clone()));
        self.announced.clone().into_iter().chain(lingering).collect()
    }

    /// Those of [`Handover::addresses`] that are only answered for, until their successor has announced them.
    #[must_use]
    pub fn quiet(&self) -> BTreeSet<IpAddr> {
        self.lingering.keys().copied().collect()
    }

    /// When [`Handover::addresses`] will answer differently by itself.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.lingering.values().map(|(until, _)| *until).min()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use patina_speaker_core::intent::Verdict;
    use patina_speaker_core::view::ServiceId;

    use super::*;

    const IP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn led_by(leader: Option<&str>) -> Intent {
        let id = ServiceId::new("default", "web");
        let mine = leader == Some("me");
        let verdict =
            Verdict { addresses: vec![IP], leader: leader.map(Arc::from), mine, ..Verdict::default() };
        let mut intent = Intent::default();
        intent.verdicts.insert(id.clone(), verdict);
        if mine {
            let interfaces = Arc::new(BTreeSet::from([2]));
            let announcement = L2Announcement { interfaces, leads: true, ..L2Announcement::default() };
            Arc::make_mut(&mut intent.l2).insert(IP, announcement);
        }
        intent
    }

    #[test]
    fn an_address_with_a_successor_lingers_until_it_is_heard() {
        let (mut handover, now) = (Handover::default(), Instant::now());
        assert!(handover.decide(now, &led_by(Some("me"))).contains_key(&IP));
        assert!(handover.quiet().is_empty());
        assert!(handover.decide(now, &led_by(Some("other"))).contains_key(&IP));
        assert_eq!(handover.quiet(), BTreeSet::from([IP]), "answered, not announced");
        assert_eq!(handover.deadline(), Some(now + LONGEST));
        handover.heard(IP);
        assert!(handover.quiet().is_empty());
        assert!(handover.addresses(now).is_empty());
        assert_eq!(handover.deadline(), None);
    }

    #[test]
    fn or_until_the_deadline_which_no_later_decision_moves() {
        let (mut handover, now) = (Handover::default(), Instant::now());
        handover.decide(now, &led_by(Some("me")));
        handover.decide(now, &led_by(Some("other")));
        assert!(handover.decide(now + LONGEST / 2, &led_by(Some("other"))).contains_key(&IP));
        assert!(handover.addresses(now + LONGEST).is_empty());
        assert!(handover.decide(now + LONGEST, &led_by(Some("other"))).is_empty());
    }

    #[test]
    fn an_address_without_a_successor_falls_silent_at_once() {
        let (mut handover, now) = (Handover::default(), Instant::now());
        handover.decide(now, &led_by(Some("me")));
        assert!(handover.decide(now, &led_by(None)).is_empty());
        handover.decide(now, &led_by(Some("me")));
        handover.decide(now, &led_by(Some("other")));
        assert!(handover.decide(now, &led_by(None)).is_empty());
    }

    #[test]
    fn what_comes_back_does_not_linger() {
        let (mut handover, now) = (Handover::default(), Instant::now());
        handover.decide(now, &led_by(Some("me")));
        handover.decide(now, &led_by(Some("other")));
        assert!(handover.decide(now, &led_by(Some("me"))).contains_key(&IP));
        assert_eq!(handover.deadline(), None);
    }
}
