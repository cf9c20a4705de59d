//! OPEN: ours, and what follows from the peer's.

use std::collections::BTreeSet;
use std::time::Duration;

use patina_crds::config::PeerAsn;
use patina_crds::net::Family;

use super::connection::Agreed;
use crate::bgp::codec::Negotiated;
use crate::bgp::message::{Capabilities, Ends, GracefulRestart, Notification, Open};
use crate::bgp::peer::{Established, Link, Settings};

/// The largest restart time of RFC 4724 section 3: 12 bits.
const MAX_RESTART_TIME: u16 = 4095;

pub(super) fn ours(settings: &Settings, restarted: bool) -> Open {
    let families: BTreeSet<Family> = settings.families.iter().copied().collect();
    let graceful_restart = settings.graceful_restart.map(|restart_time| GracefulRestart {
        restarting: restarted,
        notification: true,
        restart_time: restart_time.min(MAX_RESTART_TIME),
        // What forwards our traffic is the kernel, which goes on: also when only the session was lost.
        families: families.iter().map(|family| (*family, true)).collect(),
    });
    Open {
        asn: settings.asn,
        hold_time: u16::try_from(settings.hold_time.as_secs()).unwrap_or(u16::MAX),
        router_id: settings.router_id,
        capabilities: Capabilities {
            ipv4_over_ipv6: settings.extended_next_hop && families.contains(&Family::V4),
            families,
            four_octet_asn: true,
            route_refresh: true,
            enhanced_route_refresh: true,
            extended_message: true,
            graceful_restart,
            long_lived: Vec::new(),
            bfd_strict: settings.bfd && settings.bfd_strict,
            other: BTreeSet::new(),
        },
    }
}

/// RFC 4271 section 6.2, in its order; version and form were the codec's.
pub(super) fn check(
    settings: &Settings,
    link: Link,
    ends: Ends,
    theirs: Open,
) -> Result<Agreed, Notification> {
    let acceptable = match settings.peer_asn {
        PeerAsn::Number(asn) => theirs.asn == asn,
        PeerAsn::Internal => theirs.asn == settings.asn,
        PeerAsn::External => theirs.asn != settings.asn,
    };
    // RFC 7607 section 2: AS 0 is "Bad Peer AS" whatever is expected.
    if !acceptable || theirs.asn == 0 {
        return Err(Notification::bad_peer_as());
    }
    // "MUST reject Hold Time values of one or two seconds."
    if matches!(theirs.hold_time, 1 | 2) {
        return Err(Notification::unacceptable_hold_time());
    }
    let internal = theirs.asn == settings.asn;
    // RFC 6286 section 2.2: zero; or, "if internal", our own.
    if theirs.router_id.is_unspecified() || (internal && theirs.router_id == settings.router_id) {
        return Err(Notification::bad_router_id());
    }
    // RFC 4760 section 8: who announces no family speaks IPv4 unicast.
    let ipv4: BTreeSet<Family> = BTreeSet::from([Family::V4]);
    let can = if theirs.capabilities.families.is_empty() { &ipv4 } else { &theirs.capabilities.families };
    let families: BTreeSet<Family> =
        settings.families.iter().copied().filter(|family| can.contains(family)).collect();
    if families.is_empty() {
        return Err(Notification::missing_families(settings.families.iter().copied()));
    }
    let hold = Duration::from_secs(theirs.hold_time.into()).min(whole_seconds(settings.hold_time));
    let capabilities = &theirs.capabilities;
    let graceful_restart = settings.graceful_restart.is_some() && capabilities.graceful_restart.is_some();
    let negotiated = Negotiated {
        four_octet_asn: capabilities.four_octet_asn,
        extended_message: capabilities.extended_message,
        ipv4_over_ipv6: settings.extended_next_hop
            && capabilities.ipv4_over_ipv6
            && families.contains(&Family::V4),
        families,
        internal,
    };
    Ok(Agreed {
        keepalive: keepalive_time(settings, hold),
        graceful_restart,
        graceful_notification: graceful_restart
            && capabilities.graceful_restart.as_ref().is_some_and(|theirs| theirs.notification),
        with: Established {
            link,
            ends,
            asn: theirs.asn,
            router_id: theirs.router_id,
            hold_time: hold,
            negotiated,
            theirs: theirs.capabilities,
        },
    })
}

/// What OPEN can say.
fn whole_seconds(time: Duration) -> Duration {
    Duration::from_secs(time.as_secs().min(u16::MAX.into()))
}

/// "A reasonable maximum time between KEEPALIVE messages would be one third of the Hold Time interval", also where the peer wants a
/// smaller one than we were told of. "KEEPALIVE messages MUST NOT be sent more frequently than one per second."
fn keepalive_time(settings: &Settings, hold: Duration) -> Option<Duration> {
    if hold.is_zero() {
        // "If the negotiated Hold Time interval is zero, then periodic KEEPALIVE messages MUST NOT be sent."
        return None;
    }
    let third = hold / 3;
    let wanted = settings.keepalive_time.filter(|time| !time.is_zero()).unwrap_or(third);
    // With the jitter it could be less than a second.
    Some(wanted.min(third).max(Duration::from_secs(1)))
}
