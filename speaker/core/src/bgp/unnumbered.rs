//! Who the router on an interface is, where nobody configured its address: router advertisements (RFC 4861) say it, and ours
//! let the router find us, as peers of "unnumbered" BGP expect (RFC 8950 carries the IPv4 routes).
//!
//! ```text
//!   router solicitation (4.1)           router advertisement (4.2)
//!   0        1        2        3        0        1        2        3
//!  +--------+--------+-----------------+ +--------+--------+-----------------+
//!  |  133   |   0    |    checksum     | |  134   |   0    |    checksum     |
//!  +--------+--------+-----------------+ +--------+--------+-----------------+
//!  |             reserved              | |hop lim.| flags  | router lifetime |
//!  +-----------------------------------+ +--------+--------+-----------------+
//!                                        |          reachable time           |
//!                                        |           retrans timer           |
//!                                        +-----------------------------------+
//!  both: option 1, length 1: our MAC address. The kernel fills in the checksum.
//! ```

use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

/// ICMPv6 type of a router solicitation.
pub const SOLICITATION: u8 = 133;
/// ICMPv6 type of a router advertisement.
pub const ADVERTISEMENT: u8 = 134;
/// Solicitations until a router is known (RFC 4861 section 10: RTR_SOLICITATION_INTERVAL).
const SOLICIT: Duration = Duration::from_secs(4);
/// Our advertisements; routers on such links use 10 s.
const ADVERTISE: Duration = Duration::from_secs(10);
/// The first ones come sooner (RFC 4861 section 10: MIN_DELAY_BETWEEN_RAS), so that a session is there soon.
const ADVERTISE_FIRST: Duration = Duration::from_secs(3);
/// How many are "first" (MAX_INITIAL_RTR_ADVERTISEMENTS).
const FIRST: u32 = 3;
/// A router that was silent for this long gives way to another one that speaks.
const SILENT: Duration = Duration::from_secs(40);

/// One interface.
#[derive(Debug)]
pub struct Discovery {
    mac: [u8; 6],
    router: Option<(Ipv6Addr, Instant)>,
    solicit_at: Option<Instant>,
    advertise_at: Instant,
    advertised: u32,
}

impl Discovery {
    /// Looks for a router from now on. `mac`: ours on the interface.
    #[must_use]
    pub fn new(mac: [u8; 6], now: Instant) -> Self {
        Self { mac, router: None, solicit_at: Some(now), advertise_at: now, advertised: 0 }
    }

    /// The router.
    #[must_use]
    pub fn router(&self) -> Option<Ipv6Addr> {
        self.router.map(|(ip, _)| ip)
    }

    /// An ICMPv6 message came, whose hop limit was 255 (RFC 4861 section 6.1.2). True: the router is another one now.
    pub fn handle(&mut self, now: Instant, from: Ipv6Addr, message: &[u8]) -> bool {
        // "IP Source Address MUST be a link-local address", "ICMP length is 16 or more octets", "ICMP Code is 0".
        if !from.is_unicast_link_local() || message.len() < 16 || !message.starts_with(&[ADVERTISEMENT, 0]) {
            return false;
        }
        match &mut self.router {
            Some((known, heard)) if *known == from => {
                *heard = now;
                false
            }
            Some((_, heard)) if now.saturating_duration_since(*heard) < SILENT => false,
            _ => {
                self.router = Some((from, now));
                self.solicit_at = None;
                // It has just come up, and has not heard us.
                self.advertise_at = now;
                true
            }
        }
    }

    /// When [`Discovery::poll_transmit`] has something to send.
    #[must_use]
    pub fn poll_timeout(&self) -> Instant {
        self.solicit_at.map_or(self.advertise_at, |at| at.min(self.advertise_at))
    }

    /// What is due: an ICMPv6 message, and whom it goes to.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<(Ipv6Addr, Vec<u8>)> {
        if self.solicit_at.is_some_and(|at| at <= now) {
            self.solicit_at = Some(now + SOLICIT);
            let message = [&[SOLICITATION, 0, 0, 0, 0, 0, 0, 0], &self.source()[..]].concat();
            return Some((Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2), message));
        }
        if self.advertise_at <= now {
            self.advertised = self.advertised.saturating_add(1);
            self.advertise_at = now + if self.advertised <= FIRST { ADVERTISE_FIRST } else { ADVERTISE };
            // Router lifetime 0: nobody shall send through us by default. Hop limit and times 0: unspecified by us.
            let head = [ADVERTISEMENT, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            let message = [&head[..], &self.source()].concat();
            return Some((Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1), message));
        }
        None
    }

    /// The source link-layer address option (RFC 4861 section 4.6.1).
    fn source(&self) -> [u8; 8] {
        let [a, b, c, d, e, f] = self.mac;
        [1, 1, a, b, c, d, e, f]
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // a first instant to count from; the clock is never read again
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];

    fn ip(text: &str) -> Ipv6Addr {
        text.parse().unwrap()
    }

    fn advertisement() -> Vec<u8> {
        let mut bytes = vec![0; 16];
        bytes[0] = ADVERTISEMENT;
        bytes
    }

    fn sent(discovery: &mut Discovery, now: Instant) -> Vec<u8> {
        std::iter::from_fn(|| discovery.poll_transmit(now)).map(|(_, message)| message[0]).collect()
    }

    #[test]
    fn it_asks_until_a_router_answers_and_tells_of_itself_all_the_time() {
        let start = Instant::now();
        let mut discovery = Discovery::new(MAC, start);
        let mut log = Vec::new();
        let mut now = start;
        loop {
            now = discovery.poll_timeout().max(now);
            if now > start + Duration::from_secs(30) {
                break;
            }
            if now >= start + Duration::from_secs(9) && discovery.router().is_none() {
                assert!(discovery.handle(now, ip("fe80::1"), &advertisement()));
            }
            log.extend(
                sent(&mut discovery, now).into_iter().map(|kind| (now.duration_since(start).as_secs(), kind)),
            );
        }
        let solicitations: Vec<u64> =
            log.iter().filter(|(_, kind)| *kind == SOLICITATION).map(|(at, _)| *at).collect();
        let advertisements: Vec<u64> =
            log.iter().filter(|(_, kind)| *kind == ADVERTISEMENT).map(|(at, _)| *at).collect();
        assert_eq!(solicitations, [0, 4, 8]);
        assert_eq!(advertisements, [0, 3, 6, 9, 19, 29], "{log:?}");
        assert_eq!(discovery.router(), Some(ip("fe80::1")));
    }

    #[test]
    fn what_it_sends_names_our_mac_and_makes_nobody_send_through_us() {
        let now = Instant::now();
        let mut discovery = Discovery::new(MAC, now);
        let (to, solicitation) = discovery.poll_transmit(now).unwrap();
        assert_eq!((to, &solicitation[8..]), (ip("ff02::2"), &[1, 1, 2, 0, 0, 0, 0, 7][..]));
        let (to, advertisement) = discovery.poll_transmit(now).unwrap();
        assert_eq!((to, advertisement.len(), &advertisement[4..8]), (ip("ff02::1"), 24, &[0, 0, 0, 0][..]));
        assert_eq!(discovery.poll_transmit(now), None);
    }

    #[test]
    fn a_router_gives_way_to_another_only_when_it_is_silent() {
        let now = Instant::now();
        let mut discovery = Discovery::new(MAC, now);
        assert!(discovery.handle(now, ip("fe80::1"), &advertisement()));
        assert!(!discovery.handle(now + SILENT / 2, ip("fe80::1"), &advertisement()));
        assert!(!discovery.handle(now + SILENT, ip("fe80::2"), &advertisement()));
        assert!(discovery.handle(now + SILENT / 2 + SILENT, ip("fe80::2"), &advertisement()));
        assert_eq!(discovery.router(), Some(ip("fe80::2")));
    }

    #[test]
    fn what_is_no_advertisement_of_a_neighbour_is_not_believed() {
        let now = Instant::now();
        let mut discovery = Discovery::new(MAC, now);
        let mut code = advertisement();
        code[1] = 1;
        for (from, message) in [
            ("2001:db8::1", advertisement()),
            ("fe80::1", advertisement()[..15].to_vec()),
            ("fe80::1", code),
            ("fe80::1", vec![SOLICITATION; 16]),
            ("fe80::1", Vec::new()),
        ] {
            assert!(!discovery.handle(now, ip(from), &message), "{from} {message:?}");
        }
        assert_eq!(discovery.router(), None);
    }
}
