//! The network devices of this node, from rtnetlink: a list that is always complete, refreshed by events.
//!
//! An event only says *that* something changed; the list then comes from a new dump. So a lost or misread event costs
//! nothing that the next one does not repair, and there is no second copy of the kernel's rules here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{
    InfoPortKind, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use patina_speaker_core::view::InterfaceView;
use rtnetlink::{Handle, MulticastGroup};
use tokio::sync::Notify;

use crate::exclude::Exclude;

/// How often the file that excludes interfaces is looked at.
const REREAD: Duration = Duration::from_secs(5);

type Event = NetlinkMessage<RouteNetlinkMessage>;

/// Why the list of interfaces is not to be had. The process cannot go on without it.
#[derive(Debug, thiserror::Error)]
pub enum InterfacesError {
    /// No netlink socket.
    #[error("cannot open a netlink socket: {0}")]
    Open(#[from] std::io::Error),
    /// A dump failed.
    #[error("cannot list {what} by netlink: {cause}")]
    Dump {
        /// What was asked for.
        what: &'static str,
        /// The kernel's answer.
        #[source]
        cause: rtnetlink::Error,
    },
    /// The connection ended; no event would come any more.
    #[error("the netlink connection ended")]
    Closed,
}

/// The current list, shared with the decision task.
#[derive(Clone, Debug, Default)]
pub struct Interfaces(Arc<Mutex<Vec<InterfaceView>>>);

impl Interfaces {
    /// All interfaces that are not excluded, in the order of their index.
    #[must_use]
    pub fn list(&self) -> Vec<InterfaceView> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn replace(&self, list: Vec<InterfaceView>) -> bool {
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = *current != list;
        *current = list;
        changed
    }
}

/// Follows the kernel; made by [`watch`], driven by [`Follower::run`].
#[allow(missing_debug_implementations)] // the netlink handle and stream have none
pub struct Follower {
    interfaces: Interfaces,
    handle: Handle,
    events: BoxStream<'static, Event>,
    exclude: Exclude,
    changed: Arc<Notify>,
}

/// Subscribes and reads the first list, so that [`Interfaces::list`] is complete from the start.
///
/// # Errors
/// No netlink socket, or the first dump failed.
pub async fn watch(
    exclude: Exclude,
    changed: Arc<Notify>,
) -> Result<(Interfaces, Follower), InterfacesError> {
    let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
    let (connection, handle, events) = rtnetlink::new_multicast_connection(&groups)?;
    tokio::spawn(connection); // ends with the last handle; its end shows as the end of `events`
    let events = events.map(|(message, _sender)| message).boxed();
    let interfaces = Interfaces::default();
    interfaces.replace(dump(&handle, &exclude).await?);
    Ok((interfaces.clone(), Follower { interfaces, handle, events, exclude, changed }))
}

impl Follower {
    /// Keeps the list up to date and says so through the `Notify`; returns only with an error.
    ///
    /// # Errors
    /// The connection ended or a dump failed.
    pub async fn run(mut self) -> Result<(), InterfacesError> {
        let mut reread = tokio::time::interval(REREAD);
        loop {
            let relevant = tokio::select! {
                message = self.events.next() => {
                    let Some(message) = message else { return Err(InterfacesError::Closed) };
                    let mut relevant = self.is_relevant(&message);
                    // One dump for a burst of events.
                    while let Some(Some(message)) = self.events.next().now_or_never() {
                        relevant |= self.is_relevant(&message);
                    }
                    relevant
                }
                _ = reread.tick() => self.excludes_others(),
            };
            if relevant && self.interfaces.replace(dump(&self.handle, &self.exclude).await?) {
                self.changed.notify_one();
            }
        }
    }

    /// Whether the file that excludes interfaces says something else than before.
    fn excludes_others(&mut self) -> bool {
        match self.exclude.reread() {
            Ok(changed) => {
                if changed {
                    tracing::info!("other interfaces are excluded than before");
                }
                changed
            }
            Err(error) => {
                tracing::error!("{error}; what was excluded before stays so");
                false
            }
        }
    }

    /// Events of excluded devices (on a busy node: each pod's veth) cost no dump, unless the device was on the list.
    fn is_relevant(&self, message: &Event) -> bool {
        match &message.payload {
            NetlinkPayload::InnerMessage(
                RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link),
            ) => {
                let excluded = name(link).is_some_and(|name| self.exclude.matches(name));
                let listed =
                    self.interfaces.list().iter().any(|interface| interface.index == link.header.index);
                listed || !excluded
            }
            NetlinkPayload::InnerMessage(
                RouteNetlinkMessage::NewAddress(address) | RouteNetlinkMessage::DelAddress(address),
            ) => self.interfaces.list().iter().any(|interface| interface.index == address.header.index),
            // Events were lost.
            NetlinkPayload::Overrun(_) => true,
            _ => false,
        }
    }
}

async fn dump(handle: &Handle, exclude: &Exclude) -> Result<Vec<InterfaceView>, InterfacesError> {
    let links: Vec<LinkMessage> = handle
        .link()
        .get()
        .set_filter_mask(AddressFamily::Unspec, vec![LinkExtentMask::SkipStats])
        .execute()
        .try_collect()
        .await
        .map_err(|cause| InterfacesError::Dump { what: "links", cause })?;
    let addresses: Vec<AddressMessage> = handle
        .address()
        .get()
        .execute()
        .try_collect()
        .await
        .map_err(|cause| InterfacesError::Dump { what: "addresses", cause })?;
    Ok(views(&links, &addresses, exclude))
}

/// What the kernel says, in our words.
fn views(links: &[LinkMessage], addresses: &[AddressMessage], exclude: &Exclude) -> Vec<InterfaceView> {
    let mut list: BTreeMap<u32, InterfaceView> = links
        .iter()
        .filter_map(view)
        .filter(|interface| !exclude.matches(&interface.name))
        .map(|interface| (interface.index, interface))
        .collect();
    for message in addresses {
        if let Some(interface) = list.get_mut(&message.header.index) {
            add_address(interface, message);
        }
    }
    list.into_values().collect()
}

fn view(link: &LinkMessage) -> Option<InterfaceView> {
    let flags = link.header.flags;
    let mac = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Address(bytes) => <[u8; 6]>::try_from(bytes.as_slice()).ok(),
        _ => None,
    });
    let ethernet = link.header.link_layer_type == LinkLayerType::Ether && mac.is_some();
    Some(InterfaceView {
        name: name(link)?.to_owned(),
        index: link.header.index,
        mac: mac.unwrap_or_default(),
        // RUNNING: administratively up *and* with carrier.
        up: flags.contains(LinkFlags::Up) && flags.contains(LinkFlags::Running),
        arp: ethernet && flags.contains(LinkFlags::Broadcast) && !flags.contains(LinkFlags::Noarp),
        // `add_address` completes it: neighbour discovery needs a link-local address to speak from.
        ndp: false,
        enslaved: is_enslaved(link),
        addresses: BTreeSet::new(),
    })
}

fn add_address(interface: &mut InterfaceView, message: &AddressMessage) {
    // `Local` is the interface's own address; on a point-to-point link `Address` is the peer's.
    let own = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(ip) => Some(*ip),
        _ => None,
    });
    let any = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(ip) => Some(*ip),
        _ => None,
    });
    let failed = message.attributes.iter().any(
        |attribute| matches!(attribute, AddressAttribute::Flags(flags) if flags.contains(AddressFlags::Dadfailed)),
    );
    let Some(ip) = own.or(any).filter(|_| !failed) else { return };
    interface.ndp |= interface.arp && matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
    interface.addresses.insert((ip, message.header.prefix_len));
}

fn name(link: &LinkMessage) -> Option<&str> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    })
}

/// A port of a bond, bridge, team or OVS: its master has the connectivity. A member of a VRF keeps its own.
fn is_enslaved(link: &LinkMessage) -> bool {
    let has_master = link
        .attributes
        .iter()
        .any(|attribute| matches!(attribute, LinkAttribute::Controller(index) if *index != 0));
    let in_vrf = link.attributes.iter().any(|attribute| {
        matches!(attribute, LinkAttribute::LinkInfo(infos)
            if infos.contains(&LinkInfo::PortKind(InfoPortKind::Vrf)))
    });
    has_master && !in_vrf
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::address::AddressHeader;
    use netlink_packet_route::link::LinkHeader;

    use super::*;

    fn link(index: u32, name: &str, flags: LinkFlags, extra: Vec<LinkAttribute>) -> LinkMessage {
        let mut link = LinkMessage::default();
        link.header =
            LinkHeader { index, flags, link_layer_type: LinkLayerType::Ether, ..LinkHeader::default() };
        link.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::Address(vec![2, 0, 0, 0, 0, index as u8]),
        ];
        link.attributes.extend(extra);
        link
    }

    fn address(index: u32, ip: &str, prefix_len: u8, flags: AddressFlags) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.header = AddressHeader { index, prefix_len, ..AddressHeader::default() };
        message.attributes =
            vec![AddressAttribute::Address(ip.parse().unwrap()), AddressAttribute::Flags(flags)];
        message
    }

    const ON: LinkFlags = LinkFlags::Up.union(LinkFlags::Running).union(LinkFlags::Broadcast);

    #[test]
    fn a_plain_interface_speaks_arp_and_with_a_link_local_address_ndp() {
        let links = [link(2, "eth0", ON, vec![])];
        let none = views(&links, &[], &Exclude::nothing());
        assert!(none[0].up && none[0].arp && !none[0].ndp && !none[0].enslaved, "{none:?}");
        assert_eq!(none[0].mac, [2, 0, 0, 0, 0, 2]);
        let dad_failed = [address(2, "fe80::2", 64, AddressFlags::Dadfailed)];
        assert!(!views(&links, &dad_failed, &Exclude::nothing())[0].ndp);
        let good = [
            address(2, "fe80::2", 64, AddressFlags::Permanent),
            address(2, "192.0.2.1", 24, AddressFlags::Permanent),
        ];
        let with = views(&links, &good, &Exclude::nothing());
        assert!(with[0].ndp);
        assert_eq!(with[0].addresses.len(), 2);
    }

    #[test]
    fn down_without_carrier_and_noarp_show() {
        let list = views(
            &[
                link(1, "down", LinkFlags::Broadcast, vec![]),
                link(2, "nocarrier", LinkFlags::Up | LinkFlags::Broadcast, vec![]),
                link(3, "noarp", ON | LinkFlags::Noarp, vec![]),
            ],
            &[address(3, "fe80::3", 64, AddressFlags::Permanent)],
            &Exclude::nothing(),
        );
        assert!(!list[0].up && !list[1].up && list[2].up);
        assert!(!list[2].arp && !list[2].ndp);
    }

    #[test]
    fn a_port_of_a_bridge_is_enslaved_and_a_member_of_a_vrf_is_not() {
        let port = |kind| {
            vec![LinkAttribute::Controller(9), LinkAttribute::LinkInfo(vec![LinkInfo::PortKind(kind)])]
        };
        let list = views(
            &[
                link(1, "in-bond", ON, port(InfoPortKind::Bond)),
                link(2, "in-bridge", ON, port(InfoPortKind::Bridge)),
                link(3, "in-ovs", ON, vec![LinkAttribute::Controller(9)]),
                link(4, "in-vrf", ON, port(InfoPortKind::Vrf)),
            ],
            &[],
            &Exclude::nothing(),
        );
        assert_eq!(list.iter().map(|i| i.enslaved).collect::<Vec<_>>(), [true, true, true, false]);
    }

    #[test]
    fn excluded_interfaces_are_not_on_the_list() {
        let exclude = Exclude::load(std::path::Path::new("/nonexistent")).unwrap();
        let list = views(&[link(1, "veth12", ON, vec![]), link(2, "eth0", ON, vec![])], &[], &exclude);
        assert_eq!(list.iter().map(|i| i.name.as_str()).collect::<Vec<_>>(), ["eth0"]);
    }
}
