//! Which addresses foreign hosts have, as far as this node is concerned. Pure but for the instants that it is given.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use patina_speaker_core::intent::Intent;
use patina_speaker_core::view::ServiceId;

/// An address that was given up because of a foreign host is kept from others for so long. Nobody looks whether it is free
/// while no Service has it; and with each Service that got it in the meantime the same would happen again.
const KEPT: Duration = Duration::from_secs(600);

/// What is seen of a foreign host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its MAC address.
    pub mac: [u8; 6],
    /// Name of the interface on which it was seen.
    pub interface: String,
    /// The Service that has the address; of several the first.
    pub service: ServiceId,
    /// We had announced the address before.
    pub in_use: bool,
    /// When it was seen first.
    pub first: Timestamp,
}

impl Seen {
    /// As `02:00:00:00:00:01`.
    #[must_use]
    pub fn mac_text(&self) -> String {
        self.mac.map(|byte| format!("{byte:02x}")).join(":")
    }
}

/// All that is seen now.
#[derive(Debug, Default)]
pub struct Sightings {
    seen: BTreeMap<IpAddr, Seen>,
    /// Of those, the addresses that no Service has any more, and until when they are kept.
    left: BTreeMap<IpAddr, Instant>,
}

impl Sightings {
    /// A foreign host has it. The first of a series stays: it says what was before.
    pub fn conflict(&mut self, ip: IpAddr, seen: Seen) {
        let known = self.seen.entry(ip).or_insert_with(|| seen.clone());
        known.in_use |= seen.in_use;
        (known.mac, known.interface, known.service) = (seen.mac, seen.interface, seen.service);
        self.left.remove(&ip);
    }

    /// The host has let go of it, or we are not concerned any more. An address that no Service has stays for a while.
    pub fn over(&mut self, now: Instant, ip: IpAddr, intent: &Intent) {
        if intent.knows(ip) {
            self.seen.remove(&ip);
        } else if self.seen.contains_key(&ip) {
            self.left.entry(ip).or_insert(now + KEPT);
        }
    }

    /// A decision: where another node leads now, it is for that one to look; what no Service has any more stays for a while.
    pub fn decided(&mut self, now: Instant, intent: &Intent) {
        let ours = |ip: &IpAddr| intent.l2.get(ip).is_some_and(|announcement| announcement.leads);
        let others: Vec<IpAddr> = self.seen.keys().filter(|ip| !ours(ip)).copied().collect();
        self.left.retain(|ip, _| !ours(ip));
        for ip in others {
            if intent.knows(ip) {
                self.left.remove(&ip);
            }
            self.over(now, ip, intent);
        }
        self.expire(now);
    }

    /// Forgets what was kept long enough.
    pub fn expire(&mut self, now: Instant) {
        let Self { seen, left } = self;
        left.retain(|ip, until| {
            let keep = *until > now;
            if !keep {
                seen.remove(ip);
            }
            keep
        });
    }

    /// When [`Sightings::expire`] will forget something.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.left.values().copied().min()
    }

    /// By address.
    #[must_use]
    pub fn seen(&self) -> &BTreeMap<IpAddr, Seen> {
        &self.seen
    }

    /// How many addresses of Services foreign hosts have.
    #[must_use]
    pub fn count(&self) -> usize {
        self.seen.len() - self.left.len()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use patina_speaker_core::intent::{How, L2Announcement};

    use super::*;

    const IP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn seen(mac: u8, in_use: bool) -> Seen {
        Seen {
            mac: [2, 0, 0, 0, 0, mac],
            interface: "eth0".to_owned(),
            service: ServiceId::new("default", "web"),
            in_use,
            first: Timestamp::from_second(i64::from(mac)).unwrap(),
        }
    }

    /// `None`: no Service has the address.
    fn intent(leads: Option<bool>) -> Intent {
        let mut intent = Intent::default();
        if let Some(leads) = leads {
            let how = Arc::new(How { leads, ..How::default() });
            let announcement = L2Announcement { how, ..L2Announcement::default() };
            Arc::make_mut(&mut intent.l2).insert(IP, announcement);
        }
        intent
    }

    fn one(leads: Option<bool>, now: Instant) -> Sightings {
        let mut sightings = Sightings::default();
        sightings.conflict(IP, seen(1, false));
        sightings.decided(now, &intent(leads));
        sightings
    }

    #[test]
    fn a_conflict_is_told_until_it_is_over() {
        let now = Instant::now();
        let mut sightings = one(Some(true), now);
        assert_eq!((sightings.count(), sightings.deadline()), (1, None));
        sightings.conflict(IP, seen(2, true));
        let told = sightings.seen()[&IP].clone();
        assert_eq!((told.mac[5], told.in_use, told.first), (2, true, Timestamp::from_second(1).unwrap()));
        assert_eq!(told.mac_text(), "02:00:00:00:00:02");
        sightings.over(now, IP, &intent(Some(true)));
        assert_eq!(sightings.count(), 0);
    }

    #[test]
    fn where_another_node_leads_it_is_not_ours_to_tell() {
        let now = Instant::now();
        assert!(one(Some(false), now).seen().is_empty());
    }

    #[test]
    fn an_address_that_was_left_because_of_it_is_kept_from_others_for_a_while() {
        let now = Instant::now();
        let mut sightings = one(None, now);
        sightings.over(now, IP, &intent(None)); // the machine says that it has nothing to do with it any more
        assert_eq!((sightings.count(), sightings.seen().len()), (0, 1));
        assert_eq!(sightings.deadline(), Some(now + KEPT));
        sightings.decided(now + KEPT / 2, &intent(None));
        assert_eq!(sightings.deadline(), Some(now + KEPT), "no later decision moves it");
        sightings.expire(now + KEPT);
        assert!(sightings.seen().is_empty() && sightings.deadline().is_none());
        // Somebody gets it all the same (asked for by name just before), and we lead: it counts again.
        let mut sightings = one(None, now);
        sightings.decided(now, &intent(Some(true)));
        assert_eq!((sightings.count(), sightings.deadline()), (1, None));
        let mut sightings = one(None, now);
        sightings.decided(now, &intent(Some(false)));
        assert!(sightings.seen().is_empty() && sightings.deadline().is_none());
    }
}
