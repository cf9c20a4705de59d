//! Capabilities of an OPEN (RFC 5492).

use netgauze_bgp_pkt::capabilities::{
    BgpCapability, ExtendedNextHopEncoding, ExtendedNextHopEncodingCapability, FourOctetAsCapability,
    GracefulRestartAddressFamily, GracefulRestartCapability, LongLivedGracefulRestartAddressFamily,
    LongLivedGracefulRestartCapability, MultiProtocolExtensionsCapability, UnrecognizedCapability,
};
use netgauze_iana::address_family::{AddressFamily, AddressType};
use netgauze_parse_utils::WritablePdu;
use patina_crds::net::Family;

use super::family;
use crate::bgp::message::{Capabilities, GracefulRestart, Open};

/// Longest restart time: it has 12 bits (RFC 4724 section 3).
const MAX_RESTART_TIME: u16 = 0x0fff;
/// draft-ietf-idr-bgp-bfd-strict-mode section 4.
const BFD_STRICT: u8 = 74;

/// Adds what a parameter says; `None`: it cannot be taken apart.
///
/// A capability that is known and malformed counts as one that the peer does not have: RFC 5492 section 3 lets a session go
/// on without capabilities. Of several instances the last one holds (RFC 4724 section 3, RFC 9494 section 3.1), except
/// where they add up: "Multiprotocol Extensions" is sent once for each family.
pub(super) fn read(
    mut value: &[u8],
    capabilities: &mut Capabilities,
    four_octets: &mut Option<u32>,
) -> Option<()> {
    while let [code, length, rest @ ..] = value {
        let (one, rest) = rest.split_at_checked(usize::from(*length))?;
        match (*code, one) {
            (1, &[a, b, _, safi]) => capabilities.families.extend(family(u16::from_be_bytes([a, b]), safi)),
            (2 | 128, []) => capabilities.route_refresh = true,
            (5, encodings) if encodings.len() % 6 == 0 => {
                capabilities.ipv4_over_ipv6 |= encodings.chunks_exact(6).any(|e| e == [0, 1, 0, 1, 0, 2]);
            }
            (6, []) => capabilities.extended_message = true,
            (64, &[high, low, ref families @ ..]) if families.len() % 4 == 0 => {
                capabilities.graceful_restart = Some(GracefulRestart {
                    restarting: high & 0x80 != 0,
                    notification: high & 0x40 != 0,
                    restart_time: u16::from_be_bytes([high, low]) & MAX_RESTART_TIME,
                    families: each(families, |&[a, b, safi, flags]| {
                        Some((family(u16::from_be_bytes([a, b]), safi)?, flags & 0x80 != 0))
                    }),
                });
            }
            (65, &[a, b, c, d]) => {
                capabilities.four_octet_asn = true;
                *four_octets = Some(u32::from_be_bytes([a, b, c, d]));
            }
            (70, []) => capabilities.enhanced_route_refresh = true,
            (71, families) if families.len() % 7 == 0 => {
                capabilities.long_lived = each(families, |&[a, b, safi, _flags, x, y, z]| {
                    Some((family(u16::from_be_bytes([a, b]), safi)?, u32::from_be_bytes([0, x, y, z])))
                });
            }
            (BFD_STRICT, []) => capabilities.bfd_strict = true,
            (other, _) => {
                capabilities.other.insert(other);
            }
        }
        value = rest;
    }
    value.is_empty().then_some(())
}

/// Tuples of `N` octets whose family we speak. "... MUST ignore" others (RFC 4724 section 3).
fn each<const N: usize, T>(tuples: &[u8], read: impl Fn(&[u8; N]) -> Option<T>) -> Vec<T> {
    tuples.chunks_exact(N).filter_map(|tuple| read(tuple.first_chunk()?)).collect()
}

/// The value of the parameter that says what we can.
pub(super) fn encode(open: &Open) -> Vec<u8> {
    let ours = &open.capabilities;
    let mut list: Vec<_> = ours
        .families
        .iter()
        .map(|family| BgpCapability::MultiProtocolExtensions(multiprotocol(*family)))
        .collect();
    let mut add = |has: bool, capability: BgpCapability| list.extend(has.then_some(capability));
    add(ours.route_refresh, BgpCapability::RouteRefresh);
    let ipv4_over_ipv6 = [ExtendedNextHopEncoding::new(AddressType::Ipv4Unicast, AddressFamily::IPv6)];
    add(
        ours.ipv4_over_ipv6,
        BgpCapability::ExtendedNextHopEncoding(ExtendedNextHopEncodingCapability::new(ipv4_over_ipv6)),
    );
    add(ours.extended_message, BgpCapability::ExtendedMessage);
    if let Some(restart) = &ours.graceful_restart {
        add(true, BgpCapability::GracefulRestartCapability(graceful_restart(restart)));
    }
    add(ours.four_octet_asn, BgpCapability::FourOctetAs(FourOctetAsCapability::new(open.asn)));
    add(ours.enhanced_route_refresh, BgpCapability::EnhancedRouteRefresh);
    add(!ours.long_lived.is_empty(), BgpCapability::LongLivedGracefulRestart(long_lived(ours)));
    add(ours.bfd_strict, BgpCapability::Unrecognized(UnrecognizedCapability::new(BFD_STRICT, [])));
    let mut value = Vec::new();
    for capability in list {
        // A vector takes all that is written, and nothing else of ours can fail.
        let written = capability.write(&mut value);
        debug_assert_eq!(written, Ok(()), "{capability:?}");
    }
    value
}

fn multiprotocol(family: Family) -> MultiProtocolExtensionsCapability {
    MultiProtocolExtensionsCapability::new(unicast(family))
}

fn graceful_restart(restart: &GracefulRestart) -> GracefulRestartCapability {
    let families: Vec<_> = restart
        .families
        .iter()
        .map(|(family, kept)| GracefulRestartAddressFamily::new(*kept, unicast(*family)))
        .collect();
    let time = restart.restart_time.min(MAX_RESTART_TIME);
    GracefulRestartCapability::new(restart.restarting, restart.notification, time, families)
}

/// Forwarding state that survives for graceful restart does so for its long-lived form.
fn long_lived(ours: &Capabilities) -> LongLivedGracefulRestartCapability {
    let kept = |family: Family| {
        ours.graceful_restart.as_ref().is_some_and(|restart| restart.families.contains(&(family, true)))
    };
    let families: Vec<_> = ours
        .long_lived
        .iter()
        .map(|(family, stale)| {
            let stale = (*stale).min(LongLivedGracefulRestartAddressFamily::MAX_STALE_TIME);
            LongLivedGracefulRestartAddressFamily::new(kept(*family), unicast(*family), stale)
        })
        .collect();
    LongLivedGracefulRestartCapability::new(families)
}

fn unicast(family: Family) -> AddressType {
    match family {
        Family::V4 => AddressType::Ipv4Unicast,
        Family::V6 => AddressType::Ipv6Unicast,
    }
}
