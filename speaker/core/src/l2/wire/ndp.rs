//! Neighbour discovery for IPv6 over Ethernet (RFC 4861, RFC 2464): solicitations and advertisements.

use std::net::Ipv6Addr;

use pnet_packet::icmpv6::ndp::{
    MutableNeighborAdvertPacket, MutableNeighborSolicitPacket, NeighborAdvertFlags, NeighborAdvertPacket,
    NeighborSolicitPacket,
};
use pnet_packet::icmpv6::{self, Icmpv6Packet, Icmpv6Types};
use pnet_packet::ip::IpNextHeaderProtocols;
use pnet_packet::ipv6::{Ipv6Packet, MutableIpv6Packet};

use super::{ETHERTYPE_IPV6, Mac, Malformed};

/// RFC 4861 7.1: "The IP Hop Limit field has a value of 255, i.e., the packet could not possibly have been forwarded
/// by a router."
const HOP_LIMIT: u8 = 255;
/// Bytes of an IPv6 header.
const IPV6_HEADER: usize = 40;
/// Bytes of both messages before their options.
const MESSAGE: usize = 24;
/// RFC 4861 4.6.1, Source Link-layer Address.
const OPTION_SOURCE: u8 = 1;
/// RFC 4861 4.6.1, Target Link-layer Address.
const OPTION_TARGET: u8 = 2;
/// RFC 4861 4.6.1 on Ethernet (RFC 2464 6): type, length 1 (in units of 8 bytes), six bytes of address.
const LINK_LAYER_OPTION: usize = 8;

/// `ff02::1`
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// The solicited-node group of an address, `ff02::1:ffXX:XXXX` (RFC 4291 2.7.1).
#[must_use]
pub fn solicited_node(ip: Ipv6Addr) -> Ipv6Addr {
    let [.., high, low] = ip.segments();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | (high & 0xff), low)
}

/// The Ethernet address of an IPv6 group: 33:33 and its last four bytes (RFC 2464 7).
#[must_use]
pub fn group_mac(group: Ipv6Addr) -> Mac {
    let [.., a, b, c, d] = group.octets();
    [0x33, 0x33, a, b, c, d]
}

/// The addresses around a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Envelope {
    /// Ethernet destination.
    pub destination_mac: Mac,
    /// Ethernet source.
    pub source_mac: Mac,
    /// IPv6 destination.
    pub destination: Ipv6Addr,
    /// IPv6 source.
    pub source: Ipv6Addr,
}

/// A neighbour solicitation (RFC 4861 4.3).
///
/// ```text
///  0                   1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |  Type (135)   |   Code (0)    |          Checksum             |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                           Reserved                            |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                                                               |
/// +                       Target Address                          +
/// |                          (16 bytes)                           |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |   Options ...
/// +-+-+-+-+-+-+-+-
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Solicitation {
    /// Who asks whom. Source `::`: duplicate address detection (RFC 4862 5.4).
    pub envelope: Envelope,
    /// The address asked for; never a group.
    pub target: Ipv6Addr,
    /// Source link-layer address option; never with source `::`.
    pub source_link_layer: Option<Mac>,
}

/// A neighbour advertisement (RFC 4861 4.4).
///
/// ```text
///  0                   1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |  Type (136)   |   Code (0)    |          Checksum             |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |R|S|O|                     Reserved                            |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |                                                               |
/// +                       Target Address                          +
/// |                          (16 bytes)                           |
/// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
/// |   Options ...
/// +-+-+-+-+-+-+-+-
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Advertisement {
    /// Who tells whom.
    pub envelope: Envelope,
    /// The address it is about; never a group.
    pub target: Ipv6Addr,
    /// R: the sender is a router.
    pub router: bool,
    /// S: the answer to a solicitation that came from a unicast address.
    pub solicited: bool,
    /// O: replaces what a cache already holds.
    pub replaces: bool,
    /// Target link-layer address option.
    pub target_link_layer: Option<Mac>,
}

/// What a frame of neighbour discovery holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    /// Who has the target?
    Solicitation(Solicitation),
    /// The target is there.
    Advertisement(Advertisement),
}

impl Message {
    /// Reads a frame, with every check that RFC 4861 7.1 asks for. Bytes behind the IPv6 payload are ignored.
    ///
    /// # Errors
    /// Whatever is not a valid neighbour solicitation or advertisement straight behind the IPv6 header.
    pub fn parse(frame: &[u8]) -> Result<Self, Malformed> {
        let (destination_mac, source_mac, payload) = super::split(frame, ETHERTYPE_IPV6)?;
        let ipv6 = Ipv6Packet::new(payload).ok_or(Malformed::Truncated)?;
        if ipv6.get_version() != 6 {
            return Err(Malformed::IpVersion(ipv6.get_version()));
        }
        if ipv6.get_next_header() != IpNextHeaderProtocols::Icmpv6 {
            return Err(Malformed::NextHeader(ipv6.get_next_header().0));
        }
        // By the length field, not by what happens to follow: a frame may be padded.
        let end = IPV6_HEADER + usize::from(ipv6.get_payload_length());
        let icmp = payload.get(IPV6_HEADER..end).ok_or(Malformed::Truncated)?;
        let envelope = Envelope {
            destination_mac,
            source_mac,
            destination: ipv6.get_destination(),
            source: ipv6.get_source(),
        };
        // RFC 4291 2.7: "Multicast addresses must not be used as source addresses in IPv6 packets".
        if envelope.source.is_multicast() {
            return Err(Malformed::MulticastSource);
        }
        // RFC 4861 7.1.1 and 7.1.2, in their order: hop limit, checksum, code, length, target, options.
        if ipv6.get_hop_limit() != HOP_LIMIT {
            return Err(Malformed::HopLimit(ipv6.get_hop_limit()));
        }
        let header = Icmpv6Packet::new(icmp).ok_or(Malformed::IcmpLength(icmp.len()))?;
        if header.get_checksum() != icmpv6::checksum(&header, &envelope.source, &envelope.destination) {
            return Err(Malformed::Checksum);
        }
        let kind = header.get_icmpv6_type();
        if kind != Icmpv6Types::NeighborSolicit && kind != Icmpv6Types::NeighborAdvert {
            return Err(Malformed::IcmpType(kind.0));
        }
        if header.get_icmpv6_code().0 != 0 {
            return Err(Malformed::IcmpCode(header.get_icmpv6_code().0));
        }
        let options = icmp.get(MESSAGE..).ok_or(Malformed::IcmpLength(icmp.len()))?;
        if kind == Icmpv6Types::NeighborSolicit {
            solicitation(envelope, icmp, options).map(Self::Solicitation)
        } else {
            advertisement(envelope, icmp, options).map(Self::Advertisement)
        }
    }
}

impl Solicitation {
    /// The frame.
    #[must_use]
    pub fn emit(&self) -> Vec<u8> {
        emit(&self.envelope, OPTION_SOURCE, self.source_link_layer, |icmp| {
            let mut message = MutableNeighborSolicitPacket::new(icmp)?;
            message.set_icmpv6_type(Icmpv6Types::NeighborSolicit);
            message.set_target_addr(self.target);
            Some(())
        })
    }

    /// RFC 4862 5.4.2: "The solicitation's Target Address is set to the address being checked, the IP source is set to the
    /// unspecified address, and the IP destination is set to the solicited-node multicast address of the target
    /// address." Without the nonce of RFC 7527, which tells a probe that a loop brings back from another node's: ours is
    /// known by its MAC.
    #[must_use]
    pub fn probe(ip: Ipv6Addr, mac: Mac) -> Self {
        let group = solicited_node(ip);
        let envelope = Envelope {
            destination_mac: group_mac(group),
            source_mac: mac,
            destination: group,
            source: Ipv6Addr::UNSPECIFIED,
        };
        Self { envelope, target: ip, source_link_layer: None }
    }

    /// Whether it is a probe of duplicate address detection (RFC 4862 5.4.2).
    #[must_use]
    pub fn is_probe(&self) -> bool {
        self.envelope.source.is_unspecified()
    }

    /// The answer: `mac` has the target address.
    ///
    /// RFC 4861 7.2.4: "If the source of the solicitation is the unspecified address, the node MUST set the Solicited
    /// flag to zero and multicast the advertisement to the all-nodes address. Otherwise, the node MUST set the Solicited
    /// flag to one and unicast the advertisement to the Source Address of the solicitation." Without a source
    /// link-layer option (which a unicast solicitation may leave out) that unicast goes back to where the frame came
    /// from. The address is neither anycast nor proxied, so Override is set.
    #[must_use]
    pub fn answer(&self, mac: Mac) -> Advertisement {
        let probe = self.is_probe();
        let destination = if probe { ALL_NODES } else { self.envelope.source };
        let destination_mac = if probe {
            group_mac(ALL_NODES)
        } else {
            self.source_link_layer.unwrap_or(self.envelope.source_mac)
        };
        Advertisement {
            envelope: Envelope { destination_mac, source_mac: mac, destination, source: self.target },
            target: self.target,
            router: false,
            solicited: !probe,
            replaces: true,
            target_link_layer: Some(mac),
        }
    }
}

impl Advertisement {
    /// RFC 4861 7.2.6: an unsolicited advertisement to all nodes, with Override so that caches change at once.
    #[must_use]
    pub fn unsolicited(ip: Ipv6Addr, mac: Mac) -> Self {
        Self {
            envelope: Envelope {
                destination_mac: group_mac(ALL_NODES),
                source_mac: mac,
                destination: ALL_NODES,
                source: ip,
            },
            target: ip,
            router: false,
            solicited: false,
            replaces: true,
            target_link_layer: Some(mac),
        }
    }

    /// The frame.
    #[must_use]
    pub fn emit(&self) -> Vec<u8> {
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        emit(&self.envelope, OPTION_TARGET, self.target_link_layer, |icmp| {
            let mut message = MutableNeighborAdvertPacket::new(icmp)?;
            message.set_icmpv6_type(Icmpv6Types::NeighborAdvert);
            message.set_flags(
                flag(self.router, NeighborAdvertFlags::Router)
                    | flag(self.solicited, NeighborAdvertFlags::Solicited)
                    | flag(self.replaces, NeighborAdvertFlags::Override),
            );
            message.set_target_addr(self.target);
            Some(())
        })
    }
}

fn solicitation(envelope: Envelope, icmp: &[u8], options: &[u8]) -> Result<Solicitation, Malformed> {
    let message = NeighborSolicitPacket::new(icmp).ok_or(Malformed::IcmpLength(icmp.len()))?;
    let target = message.get_target_addr();
    // 7.1.1: "Target Address is not a multicast address."
    if target.is_multicast() {
        return Err(Malformed::MulticastTarget);
    }
    // 7.1.1: "All included options have a length that is greater than zero."
    let source_link_layer = link_layer(options, OPTION_SOURCE)?;
    // 7.1.1: "If the IP source address is the unspecified address, the IP destination address is a solicited-node
    // multicast address", and "there is no source link-layer address option in the message".
    let probe = envelope.source.is_unspecified();
    let to_group = envelope.destination == solicited_node(envelope.destination);
    if probe && (!to_group || source_link_layer.is_some()) {
        return Err(Malformed::UnspecifiedSource);
    }
    Ok(Solicitation { envelope, target, source_link_layer })
}

fn advertisement(envelope: Envelope, icmp: &[u8], options: &[u8]) -> Result<Advertisement, Malformed> {
    let message = NeighborAdvertPacket::new(icmp).ok_or(Malformed::IcmpLength(icmp.len()))?;
    let (target, flags) = (message.get_target_addr(), message.get_flags());
    // 7.1.2: "Target Address is not a multicast address."
    if target.is_multicast() {
        return Err(Malformed::MulticastTarget);
    }
    // 7.1.2: "If the IP Destination Address is a multicast address the Solicited flag is zero."
    let solicited = flags & NeighborAdvertFlags::Solicited != 0;
    if solicited && envelope.destination.is_multicast() {
        return Err(Malformed::SolicitedToGroup);
    }
    Ok(Advertisement {
        envelope,
        target,
        router: flags & NeighborAdvertFlags::Router != 0,
        solicited,
        replaces: flags & NeighborAdvertFlags::Override != 0,
        target_link_layer: link_layer(options, OPTION_TARGET)?,
    })
}

/// Walks all options (RFC 4861 4.6) and takes the first link-layer address of this kind. By hand: `pnet_packet`
/// computes `length * 8` in a byte.
///
/// ```text
/// +---------------+---------------+---------------
/// | type          | length (x 8)  | ...
/// +---------------+---------------+---------------
/// ```
fn link_layer(mut options: &[u8], wanted: u8) -> Result<Option<Mac>, Malformed> {
    let mut found = None;
    while !options.is_empty() {
        let &[kind, length, ..] = options else { return Err(Malformed::OptionLength) };
        if length == 0 {
            return Err(Malformed::OptionLength);
        }
        let (option, rest) =
            options.split_at_checked(usize::from(length) * 8).ok_or(Malformed::OptionLength)?;
        if kind == wanted && found.is_none() {
            let &[_, _, a, b, c, d, e, f] = option else { return Err(Malformed::LinkLayerOption) };
            found = Some([a, b, c, d, e, f]);
        }
        // 7.1: "The contents of any defined options that are not specified to be used with Neighbor [...] messages
        // MUST be ignored and the packet processed as normal." Unknown ones likewise.
        options = rest;
    }
    Ok(found)
}

/// Ethernet, IPv6, the message that `fill` writes, one link-layer option, and the checksum over it.
fn emit(
    envelope: &Envelope,
    option: u8,
    link_layer: Option<Mac>,
    fill: impl FnOnce(&mut [u8]) -> Option<()>,
) -> Vec<u8> {
    let length: u16 = if link_layer.is_some() { 32 } else { 24 };
    let size = IPV6_HEADER + usize::from(length);
    super::emit(envelope.destination_mac, envelope.source_mac, ETHERTYPE_IPV6, size, |payload| {
        let mut ipv6 = MutableIpv6Packet::new(payload)?;
        ipv6.set_version(6);
        ipv6.set_payload_length(length);
        ipv6.set_next_header(IpNextHeaderProtocols::Icmpv6);
        ipv6.set_hop_limit(HOP_LIMIT);
        ipv6.set_source(envelope.source);
        ipv6.set_destination(envelope.destination);
        let icmp = payload.get_mut(IPV6_HEADER..)?;
        fill(icmp)?;
        if let Some([a, b, c, d, e, f]) = link_layer {
            let bytes: [u8; LINK_LAYER_OPTION] = [option, 1, a, b, c, d, e, f];
            icmp.get_mut(MESSAGE..)?.copy_from_slice(&bytes);
        }
        let checksum = icmpv6::checksum(&Icmpv6Packet::new(icmp)?, &envelope.source, &envelope.destination);
        icmpv6::MutableIcmpv6Packet::new(icmp)?.set_checksum(checksum);
        Some(())
    })
}
