//! Where an ARP request and a neighbour solicitation are answered.
//!
//! A table of what this node announces, and one function from a frame to a reply or to a reason for silence. It keeps
//! no time and counts nothing: the shell counts what it gets back.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::wire::arp::{Arp, Operation};
use super::wire::ndp::{Advertisement, Message, Solicitation, group_mac, solicited_node};
use super::wire::{self, BROADCAST, ETHERTYPE_ARP, ETHERTYPE_IPV6, Mac, Malformed};
use crate::intent::L2Announcement;

/// Answers for the addresses it was told.
#[derive(Clone, Debug, Default)]
pub struct Responder {
    announced: BTreeMap<IpAddr, BTreeSet<u32>>,
}

/// A frame to send back on the interface that the request came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The address that was asked for.
    pub ip: IpAddr,
    /// A whole Ethernet frame.
    pub frame: Vec<u8>,
}

/// Why a frame gets no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Dropped {
    /// Not a frame that we understand.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// Our own frame, come back.
    #[error("the frame is our own")]
    OwnFrame,
    /// To another station; an interface in promiscuous mode shows such frames.
    #[error("the frame is for another station")]
    OtherStation,
    /// An ARP reply or a neighbour advertisement.
    #[error("the frame asks for nothing")]
    NotARequest,
    /// The answer would go to a group or to nobody.
    #[error("the sender's link-layer address is not that of a station")]
    BadSender,
    /// Somebody claims one of our addresses: a conflict, or the next leader.
    #[error("the sender claims {0} itself")]
    Claimed(IpAddr),
    /// Not ours to answer on this interface.
    #[error("{0} is not announced here")]
    NotAnnounced(IpAddr),
}

impl Dropped {
    /// One word, stable, for metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::OwnFrame => "ownFrame",
            Self::OtherStation => "otherStation",
            Self::NotARequest => "notARequest",
            Self::BadSender => "badSender",
            Self::Claimed(_) => "claimed",
            Self::NotAnnounced(_) => "notAnnounced",
        }
    }
}

impl Responder {
    /// Replaces the table by what an [`Intent`](crate::intent::Intent) says.
    pub fn set(&mut self, announcements: &BTreeMap<IpAddr, L2Announcement>) {
        self.announced = announcements
            .iter()
            .map(|(ip, announcement)| (*ip, (*announcement.interfaces).clone()))
            .collect();
    }

    /// Whether `ip` is answered for on this interface.
    #[must_use]
    pub fn announces(&self, ip: IpAddr, ifindex: u32) -> bool {
        self.announced.get(&ip).is_some_and(|interfaces| interfaces.contains(&ifindex))
    }

    /// Handles a frame received on the interface `ifindex`, whose address is `mac` *now*.
    ///
    /// # Errors
    /// Why there is no answer.
    pub fn handle(&self, frame: &[u8], ifindex: u32, mac: Mac) -> Result<Reply, Dropped> {
        match wire::ethertype(frame) {
            Some(ETHERTYPE_ARP) => self.arp(&Arp::parse(frame)?, ifindex, mac),
            Some(ETHERTYPE_IPV6) => match Message::parse(frame)? {
                Message::Solicitation(solicitation) => self.ndp(&solicitation, ifindex, mac),
                Message::Advertisement(advertisement) => {
                    Err(self.advertisement(&advertisement, ifindex, mac))
                }
            },
            Some(other) => Err(Malformed::EtherType(other).into()),
            None => Err(Malformed::Truncated.into()),
        }
    }

    fn arp(&self, arp: &Arp, ifindex: u32, mac: Mac) -> Result<Reply, Dropped> {
        // First what ends most of a segment's broadcasts: it is about somebody else's address.
        let ip = IpAddr::V4(arp.target_ip);
        if !self.announces(ip, ifindex) {
            return Err(Dropped::NotAnnounced(ip));
        }
        check_stations(arp.source, arp.destination, mac, BROADCAST)?;
        if arp.is_announcement() {
            return Err(Dropped::Claimed(ip));
        }
        // RFC 826: "Is the opcode ares_op$REQUEST? (NOW look at the opcode!!)"
        if arp.operation != Operation::Request {
            return Err(Dropped::NotARequest);
        }
        if !wire::is_station(arp.sender_mac) {
            return Err(Dropped::BadSender);
        }
        Ok(Reply { ip, frame: arp.answer(mac).emit() })
    }

    fn ndp(&self, solicitation: &Solicitation, ifindex: u32, mac: Mac) -> Result<Reply, Dropped> {
        let ip = IpAddr::V6(solicitation.target);
        if !self.announces(ip, ifindex) {
            return Err(Dropped::NotAnnounced(ip));
        }
        let envelope = &solicitation.envelope;
        // RFC 4861 4.3: sent "either to the solicited-node multicast address corresponding to the target address, or
        // to the target address".
        let group = solicited_node(solicitation.target);
        check_stations(envelope.source_mac, envelope.destination_mac, mac, group_mac(group))?;
        if envelope.destination != group && envelope.destination != solicitation.target {
            return Err(Dropped::OtherStation);
        }
        if envelope.source == solicitation.target {
            return Err(Dropped::Claimed(ip));
        }
        if !wire::is_station(solicitation.source_link_layer.unwrap_or(envelope.source_mac)) {
            return Err(Dropped::BadSender);
        }
        // Duplicate address detection (RFC 4862 5.4.3) for an address of ours is answered like any other question: that
        // is how the prober learns that the address is taken.
        Ok(Reply { ip, frame: solicitation.answer(mac).emit() })
    }

    /// Never answered; but one about an address of ours, from another station, is news.
    fn advertisement(&self, advertisement: &Advertisement, ifindex: u32, mac: Mac) -> Dropped {
        let ip = IpAddr::V6(advertisement.target);
        if advertisement.envelope.source_mac == mac {
            Dropped::OwnFrame
        } else if self.announces(ip, ifindex) {
            Dropped::Claimed(ip)
        } else {
            Dropped::NotARequest
        }
    }
}

/// A frame that another station sent to us or to the group.
fn check_stations(source: Mac, destination: Mac, own: Mac, group: Mac) -> Result<(), Dropped> {
    if source == own {
        Err(Dropped::OwnFrame)
    } else if destination != own && destination != group {
        Err(Dropped::OtherStation)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::super::wire::ndp::{ALL_NODES, Envelope};
    use super::*;

    const OURS: Mac = [2, 0, 0, 0, 0, 9];
    const THEIRS: Mac = [2, 0, 0, 0, 0, 1];
    const VIP4: Ipv4Addr = Ipv4Addr::new(172, 25, 7, 100);
    const CLIENT4: Ipv4Addr = Ipv4Addr::new(172, 25, 7, 1);

    fn vip6() -> Ipv6Addr {
        "fd00:25:7::1:2:3456".parse().unwrap()
    }

    fn client6() -> Ipv6Addr {
        "fd00:25:7::1".parse().unwrap()
    }

    fn responder() -> Responder {
        let announcement =
            L2Announcement { interfaces: std::sync::Arc::new([3].into()), ..L2Announcement::default() };
        let mut responder = Responder::default();
        responder.set(&[(VIP4.into(), announcement.clone()), (vip6().into(), announcement)].into());
        responder
    }

    fn request() -> Arp {
        Arp {
            destination: BROADCAST,
            source: THEIRS,
            operation: Operation::Request,
            sender_mac: THEIRS,
            sender_ip: CLIENT4,
            target_mac: [0; 6],
            target_ip: VIP4,
        }
    }

    fn solicitation() -> Solicitation {
        let group = solicited_node(vip6());
        let envelope = Envelope {
            destination_mac: group_mac(group),
            source_mac: THEIRS,
            destination: group,
            source: client6(),
        };
        Solicitation { envelope, target: vip6(), source_link_layer: Some(THEIRS) }
    }

    fn arp(arp: Arp) -> Result<Arp, Dropped> {
        responder().handle(&arp.emit(), 3, OURS).map(|reply| Arp::parse(&reply.frame).unwrap())
    }

    fn ndp(solicitation: Solicitation) -> Result<Advertisement, Dropped> {
        responder().handle(&solicitation.emit(), 3, OURS).map(|reply| match Message::parse(&reply.frame) {
            Ok(Message::Advertisement(advertisement)) => advertisement,
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn a_request_by_broadcast_or_to_our_mac_is_answered() {
        for destination in [BROADCAST, OURS] {
            let reply = arp(Arp { destination, ..request() }).unwrap();
            assert_eq!((reply.destination, reply.source), (THEIRS, OURS));
            assert_eq!((reply.sender_mac, reply.sender_ip), (OURS, VIP4));
            assert_eq!((reply.target_mac, reply.target_ip), (THEIRS, CLIENT4));
            assert_eq!(reply.operation, Operation::Reply);
        }
    }

    #[test]
    fn an_arp_probe_is_answered() {
        // RFC 5227 2.1.1: the prober must see that the address is in use.
        let reply = arp(Arp { sender_ip: Ipv4Addr::UNSPECIFIED, ..request() }).unwrap();
        assert_eq!((reply.sender_ip, reply.target_ip), (VIP4, Ipv4Addr::UNSPECIFIED));
    }

    #[test]
    fn what_is_not_for_us_gets_no_arp_answer() {
        let other = Ipv4Addr::new(172, 25, 7, 101);
        let cases = [
            (Arp { target_ip: other, ..request() }, Dropped::NotAnnounced(other.into())),
            (Arp { destination: [2, 0, 0, 0, 0, 7], ..request() }, Dropped::OtherStation),
            (Arp { destination: [0x33, 0x33, 0, 0, 0, 1], ..request() }, Dropped::OtherStation),
            (Arp { source: OURS, ..request() }, Dropped::OwnFrame),
            (Arp { operation: Operation::Reply, ..request() }, Dropped::NotARequest),
            (Arp { sender_mac: BROADCAST, ..request() }, Dropped::BadSender),
            (Arp { sender_mac: [0; 6], ..request() }, Dropped::BadSender),
            (Arp::gratuitous_request(VIP4, THEIRS), Dropped::Claimed(VIP4.into())),
            (Arp::gratuitous_reply(VIP4, THEIRS), Dropped::Claimed(VIP4.into())),
        ];
        for (frame, expected) in cases {
            assert_eq!(arp(frame), Err(expected), "{frame:?}");
        }
    }

    #[test]
    fn nothing_is_answered_on_another_interface() {
        for frame in [request().emit(), solicitation().emit()] {
            let dropped = responder().handle(&frame, 4, OURS).unwrap_err();
            assert_eq!(dropped.reason(), "notAnnounced");
        }
    }

    #[test]
    fn a_solicitation_is_answered_with_and_without_a_link_layer_option() {
        for source_link_layer in [Some(THEIRS), None] {
            let reply = ndp(Solicitation { source_link_layer, ..solicitation() }).unwrap();
            assert_eq!(reply.envelope.destination, client6());
            assert_eq!(reply.envelope.destination_mac, THEIRS);
            assert_eq!((reply.envelope.source, reply.envelope.source_mac), (vip6(), OURS));
            assert_eq!((reply.target, reply.target_link_layer), (vip6(), Some(OURS)));
            assert_eq!((reply.router, reply.solicited, reply.replaces), (false, true, true));
        }
    }

    #[test]
    fn an_unreachability_probe_by_unicast_is_answered() {
        let envelope = Envelope { destination_mac: OURS, destination: vip6(), ..solicitation().envelope };
        let reply = ndp(Solicitation { envelope, source_link_layer: None, ..solicitation() }).unwrap();
        assert!(reply.solicited);
    }

    #[test]
    fn duplicate_address_detection_is_answered_to_all_nodes() {
        let envelope = Envelope { source: Ipv6Addr::UNSPECIFIED, ..solicitation().envelope };
        let reply = ndp(Solicitation { envelope, source_link_layer: None, ..solicitation() }).unwrap();
        assert_eq!(reply.envelope.destination, ALL_NODES);
        assert_eq!(reply.envelope.destination_mac, [0x33, 0x33, 0, 0, 0, 1]);
        assert!(!reply.solicited);
        assert!(reply.replaces);
    }

    #[test]
    fn what_is_not_for_us_gets_no_advertisement() {
        let good = solicitation();
        let with = |change: fn(&mut Envelope)| {
            let mut envelope = good.envelope;
            change(&mut envelope);
            Solicitation { envelope, ..good }
        };
        let other: Ipv6Addr = "fd00:25:7::2:2:3456".parse().unwrap(); // in the same solicited-node group
        let cases = [
            (Solicitation { target: other, ..good }, Dropped::NotAnnounced(other.into())),
            (with(|e| e.destination_mac = [2, 0, 0, 0, 0, 7]), Dropped::OtherStation),
            (with(|e| e.destination_mac = BROADCAST), Dropped::OtherStation),
            (with(|e| e.destination = ALL_NODES), Dropped::OtherStation),
            (with(|e| e.source_mac = OURS), Dropped::OwnFrame),
            (with(|e| e.source = vip6()), Dropped::Claimed(vip6().into())),
            (Solicitation { source_link_layer: Some(BROADCAST), ..good }, Dropped::BadSender),
        ];
        for (frame, expected) in cases {
            assert_eq!(ndp(frame), Err(expected), "{frame:?}");
        }
        for (ip, mac, expected) in [
            (vip6(), THEIRS, Dropped::Claimed(vip6().into())),
            (vip6(), OURS, Dropped::OwnFrame),
            (other, THEIRS, Dropped::NotARequest),
        ] {
            let advertisement = Advertisement::unsolicited(ip, mac).emit();
            assert_eq!(responder().handle(&advertisement, 3, OURS), Err(expected));
        }
    }

    #[test]
    fn a_released_address_falls_silent() {
        let mut responder = responder();
        responder.set(&BTreeMap::new());
        assert_eq!(responder.handle(&request().emit(), 3, OURS), Err(Dropped::NotAnnounced(VIP4.into())));
    }
}
