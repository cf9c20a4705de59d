//! What the speaker of a node says of the node's networks, and the controller reads: one annotation of the speaker's
//! ConfigurationState. Whoever reads it bounds and doubts it: a wrong value costs some addresses of a pool, nothing else.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::net::{Family, from_number, to_number};

/// A longer text is not read at all.
pub const LONGEST: usize = 64 * 1024;
/// Of each list, the first so many count; more are neither written nor read.
pub const MOST: usize = 256;

/// The addresses of a node's interfaces, and the routers that it sends to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks {
    /// With the prefix length of the subnet.
    pub addresses: BTreeSet<(IpAddr, u8)>,
    /// Next hops of default routes.
    pub gateways: BTreeSet<IpAddr>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Text {
    addresses: Vec<String>,
    gateways: Vec<String>,
}

impl Networks {
    /// The annotation's value: `{"addresses":["192.0.2.11/24"],"gateways":["192.0.2.1"]}`.
    #[must_use]
    pub fn to_text(&self) -> String {
        let addresses = self.addresses.iter().filter(|(ip, _)| is_telling(*ip)).take(MOST);
        let gateways = self.gateways.iter().filter(|ip| is_telling(**ip)).take(MOST);
        let text = Text {
            addresses: addresses.map(|(ip, prefix)| format!("{ip}/{prefix}")).collect(),
            gateways: gateways.map(ToString::to_string).collect(),
        };
        serde_json::to_string(&text).unwrap_or_default()
    }

    /// Reads what [`Networks::to_text`] wrote. Entries that make no sense are left out; so are fields of a later version.
    ///
    /// # Errors
    /// Too long, or not such an object at all.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > LONGEST {
            return Err(format!("{} bytes; at most {LONGEST} are read", text.len()));
        }
        let text: Text = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let address = |text: &String| {
            let (ip, prefix) = text.split_once('/')?;
            let (ip, prefix) = (ip.parse().ok()?, prefix.parse().ok()?);
            (is_telling(ip) && prefix <= Family::of(ip).bits()).then_some((ip, prefix))
        };
        let gateway = |text: &String| text.parse().ok().filter(|ip| is_telling(*ip));
        Ok(Self {
            addresses: text.addresses.iter().filter_map(address).take(MOST).collect(),
            gateways: text.gateways.iter().filter_map(gateway).take(MOST).collect(),
        })
    }
}

/// The address of the subnet itself: IPv4's network address, IPv6's subnet-router anycast address (RFC 4291 2.6.1).
/// `None` for subnets that have none: /31 (RFC 3021), /127 (RFC 6164), and single addresses.
#[must_use]
pub fn network_address(ip: IpAddr, prefix: u8) -> Option<IpAddr> {
    let host = host_bits(ip, prefix)?;
    from_number(Family::of(ip), to_number(ip) & !host)
}

/// The last address of an IPv4 subnet, if it is a broadcast address (not in a /31, RFC 3021).
#[must_use]
pub fn broadcast_address(ip: IpAddr, prefix: u8) -> Option<IpAddr> {
    let host = host_bits(ip, prefix).filter(|_| ip.is_ipv4())?;
    from_number(Family::V4, to_number(ip) | host)
}

/// A mask of the bits behind the prefix; `None` with fewer than two of them.
fn host_bits(ip: IpAddr, prefix: u8) -> Option<u128> {
    let bits = Family::of(ip).bits().checked_sub(prefix).filter(|bits| *bits >= 2)?;
    Some(1u128.checked_shl(bits.into()).unwrap_or(0).wrapping_sub(1))
}

/// Not link-local, loopback, multicast or unspecified: those are no pool's, and many nodes have the same.
#[must_use]
pub fn is_telling(ip: IpAddr) -> bool {
    let local = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    !(local || ip.is_loopback() || ip.is_multicast() || ip.is_unspecified())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_text_is_compact_and_round_trips() {
        let networks = Networks {
            addresses: [(ip("192.0.2.11"), 24), (ip("2001:db8::b"), 64)].into(),
            gateways: [ip("192.0.2.1"), ip("fe80::1")].into(),
        };
        let text = networks.to_text();
        assert_eq!(text, r#"{"addresses":["192.0.2.11/24","2001:db8::b/64"],"gateways":["192.0.2.1"]}"#);
        let read = Networks::parse(&text).unwrap();
        assert_eq!((read.addresses, read.gateways), (networks.addresses, [ip("192.0.2.1")].into()));
    }

    #[test]
    fn what_makes_no_sense_is_left_out_and_what_is_no_object_refused() {
        let text = r#"{"addresses":["192.0.2.1/33","x","127.0.0.1/8","192.0.2.1"],"gateways":["0.0.0.0","::1",""],"later":7}"#;
        assert_eq!(Networks::parse(text), Ok(Networks::default()));
        assert_eq!(Networks::parse("{}"), Ok(Networks::default()));
        for bad in ["", "[", "[1]", r#"{"addresses":7}"#, &"x".repeat(LONGEST + 1)] {
            assert!(Networks::parse(bad).is_err(), "{}", bad.len());
        }
    }

    #[test]
    fn lists_are_bounded_both_ways() {
        let addresses = (0..1000u32).map(|n| (IpAddr::from((0x0a00_0001 + n).to_be_bytes()), 8)).collect();
        let networks = Networks { addresses, ..Networks::default() };
        let text = networks.to_text();
        assert!(text.len() < LONGEST);
        assert_eq!(Networks::parse(&text).unwrap().addresses.len(), MOST);
    }

    #[test]
    fn small_subnets_have_no_address_of_their_own() {
        let both =
            |text: &str, prefix| (network_address(ip(text), prefix), broadcast_address(ip(text), prefix));
        assert_eq!(both("192.0.2.77", 24), (Some(ip("192.0.2.0")), Some(ip("192.0.2.255"))));
        assert_eq!(both("192.0.2.77", 30), (Some(ip("192.0.2.76")), Some(ip("192.0.2.79"))));
        assert_eq!(both("192.0.2.77", 31), (None, None));
        assert_eq!(both("192.0.2.77", 32), (None, None));
        assert_eq!(both("192.0.2.77", 0), (Some(ip("0.0.0.0")), Some(ip("255.255.255.255"))));
        assert_eq!(both("2001:db8::77", 64), (Some(ip("2001:db8::")), None));
        assert_eq!(both("2001:db8::77", 127), (None, None));
        assert_eq!(both("2001:db8::77", 0), (Some(ip("::")), None));
    }

    proptest! {
        #[test]
        fn reading_is_total(text in ".{0,200}", entry in "[0-9a-f.:/]{0,40}") {
            let _ = Networks::parse(&text);
            let object = format!(r#"{{"addresses":["{entry}"],"gateways":["{entry}"]}}"#);
            prop_assert!(Networks::parse(&object).is_ok());
        }
    }
}
