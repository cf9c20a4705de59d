//! The routers that this node sends to: next hops of its default routes, from rtnetlink.
//!
//! As with the interfaces, an event only says *that* something changed and a dump says what is. But a node may have a
//! million routes that change all day: this has sockets of its own, a kernel filter lets only news of default routes
//! wake it, and a dump is read as it comes and kept as nothing but its default routes.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType, RouteVia};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::sys::AsyncSocket as _;
use rtnetlink::{Handle, MulticastGroup};
use socket2::{SockFilter, SockRef};
use tokio::sync::Notify;

use crate::interfaces::InterfacesError;

type Event = NetlinkMessage<RouteNetlinkMessage>;

/// After a dump, the next one waits so long: a flapping route costs one dump a second.
const REST: Duration = Duration::from_secs(1);
/// After a dump that failed. Gateways are good to know; a speaker that announces does not end for them.
const RETRY: Duration = Duration::from_secs(10);
/// `RT_TABLE_LOCAL`: the kernel's own.
const LOCAL: u32 = 255;

/// For a netlink socket that is subscribed to routes only, each message alone: a header of 16 bytes, then `struct rtmsg`
/// (linux/rtnetlink.h), whose second byte is the length of the destination's prefix. 0 is a default route.
const DEFAULT_ROUTES: [SockFilter; 4] = [
    SockFilter::new(0x30, 0, 0, 17),          // A = the byte at 17
    SockFilter::new(0x15, 0, 1, 0),           // A == 0: go on, else skip one
    SockFilter::new(0x06, 0, 0, 0xffff_ffff), // the whole message
    SockFilter::new(0x06, 0, 0, 0),           // nothing
];

/// A next hop and the interface behind which it is.
type Hop = (u32, IpAddr);

/// The current routers, shared with the decision task.
#[derive(Clone, Debug, Default)]
pub struct Gateways(Arc<Mutex<BTreeSet<Hop>>>);

impl Gateways {
    /// Next hops of all default routes, with the index of the interface.
    #[must_use]
    pub fn list(&self) -> BTreeSet<(u32, IpAddr)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn replace(&self, hops: BTreeSet<Hop>) -> bool {
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = *current != hops;
        *current = hops;
        changed
    }
}

/// Follows the kernel; made by [`watch`], driven by [`Follower::run`].
#[allow(missing_debug_implementations)] // the netlink handles and the stream have none
pub struct Follower {
    gateways: Gateways,
    handle: Handle,
    /// The connection that brings events ends with its last handle.
    _subscription: Handle,
    events: BoxStream<'static, Event>,
    changed: Arc<Notify>,
    /// The last dump failed.
    stale: bool,
}

/// Subscribes and reads the first list, so that [`Gateways::list`] is complete from the start.
///
/// # Errors
/// No netlink socket.
pub async fn watch(changed: Arc<Notify>) -> Result<(Gateways, Follower), InterfacesError> {
    let groups = [MulticastGroup::Ipv4Route, MulticastGroup::Ipv6Route];
    let (mut connection, subscription, events) = rtnetlink::new_multicast_connection(&groups)?;
    let socket = connection.socket_mut().socket_mut();
    if let Err(error) = SockRef::from(&*socket).attach_filter(&DEFAULT_ROUTES) {
        // Costs time on a node with many routes, nothing else.
        tracing::warn!(%error, "no kernel filter for routes; every change of a route wakes the speaker");
    }
    tokio::spawn(connection);
    let (connection, handle, _) = rtnetlink::new_connection()?;
    tokio::spawn(connection);
    let gateways = Gateways::default();
    let events = events.map(|(message, _sender)| message).boxed();
    let mut follower = Follower {
        gateways: gateways.clone(),
        handle,
        _subscription: subscription,
        events,
        changed,
        stale: true,
    };
    follower.look().await;
    Ok((gateways, follower))
}

impl Follower {
    /// Keeps the list up to date and says so through the `Notify`; returns only with an error.
    ///
    /// # Errors
    /// The connection ended.
    pub async fn run(mut self) -> Result<(), InterfacesError> {
        loop {
            let mut relevant = tokio::select! {
                message = self.events.next() => is_relevant(&message.ok_or(InterfacesError::Closed)?),
                () = tokio::time::sleep(RETRY), if self.stale => true,
            };
            // One dump for a burst of events.
            while let Some(Some(message)) = self.events.next().now_or_never() {
                relevant |= is_relevant(&message);
            }
            if relevant {
                self.look().await;
                tokio::time::sleep(REST).await;
            }
        }
    }

    async fn look(&mut self) {
        match dump(&self.handle).await {
            Ok(hops) => {
                self.stale = false;
                if self.gateways.replace(hops) {
                    self.changed.notify_one();
                }
            }
            Err(error) => {
                self.stale = true;
                tracing::warn!(%error, "the gateways of this node are as they were, trying again");
            }
        }
    }
}

fn is_relevant(message: &Event) -> bool {
    match &message.payload {
        NetlinkPayload::InnerMessage(
            RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route),
        ) => route.header.destination_prefix_length == 0,
        // Events were lost.
        NetlinkPayload::Overrun(_) => true,
        _ => false,
    }
}

async fn dump(handle: &Handle) -> Result<BTreeSet<Hop>, InterfacesError> {
    let mut found = BTreeSet::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut request = RouteMessage::default();
        request.header.address_family = family;
        let mut routes = std::pin::pin!(handle.route().get(request).execute());
        let failed = |cause| InterfacesError::Dump { what: "routes", cause };
        while let Some(route) = routes.try_next().await.map_err(failed)? {
            found.extend(hops(&route));
        }
    }
    Ok(found)
}

/// Where a default route leads; nothing for any other.
fn hops(route: &RouteMessage) -> Vec<Hop> {
    let table = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    let header = &route.header;
    let is_default = header.destination_prefix_length == 0
        && header.kind == RouteType::Unicast
        && table.unwrap_or(header.table.into()) != LOCAL;
    if !is_default {
        return Vec::new();
    }
    let oif = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    });
    let mut hops: Vec<Hop> = Vec::new();
    hops.extend(oif.zip(next_hop(&route.attributes)));
    for attribute in &route.attributes {
        if let RouteAttribute::MultiPath(several) = attribute {
            hops.extend(
                several.iter().filter_map(|hop| Some((hop.interface_index, next_hop(&hop.attributes)?))),
            );
        }
    }
    hops
}

fn next_hop(attributes: &[RouteAttribute]) -> Option<IpAddr> {
    attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(RouteAddress::Inet(ip)) | RouteAttribute::Via(RouteVia::Inet(ip)) => {
            Some(IpAddr::V4(*ip))
        }
        RouteAttribute::Gateway(RouteAddress::Inet6(ip)) | RouteAttribute::Via(RouteVia::Inet6(ip)) => {
            Some(IpAddr::V6(*ip))
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::route::RouteNextHop;

    use super::*;

    fn route(prefix: u8, kind: RouteType, attributes: Vec<RouteAttribute>) -> RouteMessage {
        let mut route = RouteMessage::default();
        route.header.address_family = AddressFamily::Inet;
        route.header.destination_prefix_length = prefix;
        route.header.kind = kind;
        route.header.table = 254;
        route.attributes = attributes;
        route
    }

    fn gateway(text: &str) -> RouteAttribute {
        RouteAttribute::Gateway(RouteAddress::from(text.parse::<IpAddr>().unwrap()))
    }

    fn hop(index: u32, text: &str) -> Hop {
        (index, text.parse().unwrap())
    }

    #[test]
    fn default_routes_lead_to_gateways_and_others_do_not() {
        let plain = vec![RouteAttribute::Oif(2), gateway("192.0.2.1")];
        assert_eq!(hops(&route(0, RouteType::Unicast, plain.clone())), [hop(2, "192.0.2.1")]);
        assert_eq!(hops(&route(24, RouteType::Unicast, plain.clone())), [], "not a default route");
        assert_eq!(hops(&route(0, RouteType::Unreachable, plain.clone())), []);
        assert_eq!(hops(&route(0, RouteType::Unicast, vec![RouteAttribute::Oif(2)])), [], "a tunnel");
        let local = [plain, vec![RouteAttribute::Table(255)]].concat();
        assert_eq!(hops(&route(0, RouteType::Unicast, local)), []);
    }

    #[test]
    fn several_next_hops_and_those_of_the_other_family_count() {
        let mut second = RouteNextHop::default();
        second.interface_index = 3;
        second.attributes = vec![RouteAttribute::Via(RouteVia::Inet6("2001:db8::1".parse().unwrap()))];
        let mut first = RouteNextHop::default();
        first.interface_index = 2;
        first.attributes = vec![gateway("192.0.2.1")];
        let both = route(0, RouteType::Unicast, vec![RouteAttribute::MultiPath(vec![first, second])]);
        assert_eq!(hops(&both), [hop(2, "192.0.2.1"), hop(3, "2001:db8::1")]);
    }
}
