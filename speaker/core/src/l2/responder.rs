//! Where an ARP request and a neighbour solicitation are answered, and where another station is heard to name an address
//! of ours.
//!
//! A table of what to do for each address, and one function from a frame to a reply or to a reason for silence. It keeps
//! no time and counts nothing: the shell counts what it gets back.
//!
//! Silence about a [`Claim`] goes before an answer: whoever asks for one of our addresses *from* one of our addresses is
//! not told anything.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::duty::{Claim, ClaimKind, Duties, Duty, Mode};
use super::wire::arp::{Arp, Operation};
use super::wire::ndp::{Advertisement, Message, Solicitation, group_mac, solicited_node};
use super::wire::{self, BROADCAST, ETHERTYPE_ARP, ETHERTYPE_IPV6, Mac, MacText, Malformed};

/// Answers for the addresses it was told.
#[derive(Clone, Debug, Default)]
pub struct Responder {
    duties: Arc<Duties>,
    /// Of all our interfaces.
    own: BTreeSet<Mac>,
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
    /// It carries the MAC of the interface that it came in on: our own, come back through a loop, or another station has
    /// the same MAC.
    #[error("the frame has our own MAC")]
    OwnFrame,
    /// It names an address of ours and carries the MAC of another of our interfaces, which is on the same segment.
    #[error("the frame is from another interface of this node")]
    OtherInterface,
    /// To another station; an interface in promiscuous mode shows such frames.
    #[error("the frame is for another station")]
    OtherStation,
    /// An ARP reply or a neighbour advertisement.
    #[error("the frame asks for nothing")]
    NotARequest,
    /// The answer would go to a group or to nobody.
    #[error("the sender's link-layer address is not that of a station")]
    BadSender,
    /// Somebody names one of our addresses as its own: a conflict, or the next leader.
    #[error("{} {} {}", MacText(.0.mac), verb(.0.kind), .0.ip)]
    Claimed(Claim),
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
            Self::OtherInterface => "otherInterface",
            Self::OtherStation => "otherStation",
            Self::NotARequest => "notARequest",
            Self::BadSender => "badSender",
            Self::Claimed(_) => "claimed",
            Self::NotAnnounced(_) => "notAnnounced",
        }
    }
}

fn verb(kind: ClaimKind) -> &'static str {
    match kind {
        ClaimKind::Announcement => "announces",
        ClaimKind::Use => "uses",
        ClaimKind::Probe => "probes",
    }
}

impl Responder {
    /// Replaces what there is to do.
    pub fn set(&mut self, duties: Arc<Duties>) {
        self.duties = duties;
    }

    /// The MAC addresses of all interfaces of this node: what comes from them is no claim.
    pub fn set_own(&mut self, own: BTreeSet<Mac>) {
        self.own = own;
    }

    /// Whether `ip` is answered for on this interface.
    #[must_use]
    pub fn announces(&self, ip: IpAddr, ifindex: u32) -> bool {
        self.duty(ip, ifindex).is_some_and(|duty| duty.mode.answers())
    }

    /// Handles a frame received on the interface `ifindex`, whose address is `mac` *now*.
    ///
    /// # Errors
    /// Why there is no answer.
    pub fn handle(&self, frame: &[u8], ifindex: u32, mac: Mac) -> Result<Reply, Dropped> {
        let at = Place { ifindex, mac };
        match wire::ethertype(frame) {
            Some(ETHERTYPE_ARP) => self.arp(&Arp::parse(frame)?, at),
            Some(ETHERTYPE_IPV6) => match Message::parse(frame)? {
                Message::Solicitation(solicitation) => self.solicitation(&solicitation, at),
                Message::Advertisement(advertisement) => Err(self.advertisement(&advertisement, at)),
            },
            Some(other) => Err(Malformed::EtherType(other).into()),
            None => Err(Malformed::Truncated.into()),
        }
    }

    fn arp(&self, arp: &Arp, at: Place) -> Result<Reply, Dropped> {
        let (sender, ip) = (IpAddr::V4(arp.sender_ip), IpAddr::V4(arp.target_ip));
        // First what ends most of a segment's broadcasts: it is about somebody else's address.
        let (claimed, asked) = (self.duty(sender, at.ifindex), self.duty(ip, at.ifindex));
        if claimed.is_none() && asked.is_none() {
            return Err(Dropped::NotAnnounced(ip));
        }
        check_stations(arp.source, arp.destination, at.mac, BROADCAST)?;
        if !wire::is_station(arp.sender_mac) {
            return Err(Dropped::BadSender);
        }
        // RFC 5227 2.4: "At any time, if a host receives an ARP packet (Request *or* Reply) where the 'sender IP address'
        // is (one of) the host's own IP address(es) configured on that interface, but the 'sender hardware address' does
        // not match any of the host's own interface addresses, then this is a conflicting ARP packet". 2.1.1 says the
        // same of an address that is being probed.
        if claimed.is_some() {
            let kind = if arp.is_announcement() { ClaimKind::Announcement } else { ClaimKind::Use };
            return Err(self.claim(sender, at, arp.sender_mac, kind));
        }
        // RFC 826: "Is the opcode ares_op$REQUEST? (NOW look at the opcode!!)"
        if arp.operation != Operation::Request {
            return Err(Dropped::NotARequest);
        }
        match asked.map(|duty| duty.mode) {
            Some(Mode::Answer | Mode::Announce) => Ok(Reply { ip, frame: arp.answer(at.mac).emit() }),
            // RFC 5227 2.1.1: "In addition, if during this period the host receives any ARP Probe where the packet's
            // 'target IP address' is the address being probed for, and the packet's 'sender hardware address' is not the
            // hardware address of any of the host's interfaces, then the host SHOULD similarly treat this as an address
            // conflict".
            Some(Mode::Listen | Mode::Probe) if arp.sender_ip.is_unspecified() => {
                Err(self.claim(ip, at, arp.sender_mac, ClaimKind::Probe))
            }
            Some(Mode::Listen | Mode::Probe) | None => Err(Dropped::NotAnnounced(ip)),
        }
    }

    fn solicitation(&self, solicitation: &Solicitation, at: Place) -> Result<Reply, Dropped> {
        let envelope = &solicitation.envelope;
        let (sender, ip) = (IpAddr::V6(envelope.source), IpAddr::V6(solicitation.target));
        let (claimed, asked) = (self.duty(sender, at.ifindex), self.duty(ip, at.ifindex));
        if claimed.is_none() && asked.is_none() {
            return Err(Dropped::NotAnnounced(ip));
        }
        // RFC 4861 4.3: sent "either to the solicited-node multicast address corresponding to the target address, or
        // to the target address".
        let group = solicited_node(solicitation.target);
        check_stations(envelope.source_mac, envelope.destination_mac, at.mac, group_mac(group))?;
        if envelope.destination != group && envelope.destination != solicitation.target {
            return Err(Dropped::OtherStation);
        }
        let station = solicitation.source_link_layer.unwrap_or(envelope.source_mac);
        if !wire::is_station(station) {
            return Err(Dropped::BadSender);
        }
        if claimed.is_some() {
            return Err(self.claim(sender, at, station, ClaimKind::Use));
        }
        match asked.map(|duty| duty.mode) {
            // Duplicate address detection for an address of ours is answered like any other question: that is how the
            // prober learns that the address is taken.
            Some(Mode::Answer | Mode::Announce) => {
                Ok(Reply { ip, frame: solicitation.answer(at.mac).emit() })
            }
            // RFC 4862 5.4.3: "If the source address of the Neighbor Solicitation is the unspecified address, the
            // solicitation is from a node performing Duplicate Address Detection. If the solicitation is from another
            // node, the tentative address is a duplicate and should not be used (by either node)." What of ours came back
            // through a loop, for which RFC 7527 adds a nonce, carries our MAC: `check_stations`.
            Some(Mode::Listen | Mode::Probe) if solicitation.is_probe() => {
                Err(self.claim(ip, at, station, ClaimKind::Probe))
            }
            Some(Mode::Listen | Mode::Probe) | None => Err(Dropped::NotAnnounced(ip)),
        }
    }

    /// Never answered; but one about an address of ours, from another station, is news.
    fn advertisement(&self, advertisement: &Advertisement, at: Place) -> Dropped {
        let (ip, envelope) = (IpAddr::V6(advertisement.target), &advertisement.envelope);
        let station = advertisement.target_link_layer.unwrap_or(envelope.source_mac);
        let to_a_group = !wire::is_station(envelope.destination_mac);
        if self.duty(ip, at.ifindex).is_none() {
            Dropped::NotARequest
        } else if envelope.source_mac == at.mac {
            Dropped::OwnFrame
        } else if envelope.destination_mac != at.mac && !to_a_group {
            Dropped::OtherStation
        } else if !wire::is_station(station) {
            Dropped::BadSender
        } else {
            // RFC 4862 5.4.4: an advertisement for a tentative address says that it "is not unique", for one of ours that
            // it is a duplicate; solicited or not.
            let kind = if advertisement.solicited { ClaimKind::Use } else { ClaimKind::Announcement };
            self.claim(ip, at, station, kind)
        }
    }

    fn claim(&self, ip: IpAddr, at: Place, mac: Mac, kind: ClaimKind) -> Dropped {
        if mac == at.mac {
            Dropped::OwnFrame
        } else if self.own.contains(&mac) {
            Dropped::OtherInterface
        } else {
            Dropped::Claimed(Claim { ip, ifindex: at.ifindex, mac, kind })
        }
    }

    fn duty(&self, ip: IpAddr, ifindex: u32) -> Option<&Duty> {
        self.duties.get(&ip).filter(|duty| duty.interfaces.contains(&ifindex))
    }
}

/// Where a frame came in.
#[derive(Clone, Copy)]
struct Place {
    ifindex: u32,
    /// The interface's own.
    mac: Mac,
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
    /// Of another interface of this node.
    const SIBLING: Mac = [2, 0, 0, 0, 0, 10];
    const VIP4: Ipv4Addr = Ipv4Addr::new(172, 25, 7, 100);
    const CLIENT4: Ipv4Addr = Ipv4Addr::new(172, 25, 7, 1);

    fn vip6() -> Ipv6Addr {
        "fd00:25:7::1:2:3456".parse().unwrap()
    }

    fn client6() -> Ipv6Addr {
        "fd00:25:7::1".parse().unwrap()
    }

    fn in_mode(mode: Mode) -> Responder {
        let duty = Duty { interfaces: Arc::new([3].into()), mode, round: 0, defence: 0 };
        let mut responder = Responder::default();
        responder.set(Arc::new([(VIP4.into(), duty.clone()), (vip6().into(), duty)].into()));
        responder.set_own([OURS, SIBLING].into());
        responder
    }

    fn responder() -> Responder {
        in_mode(Mode::Announce)
    }

    fn claimed(ip: impl Into<IpAddr>, kind: ClaimKind) -> Dropped {
        Dropped::Claimed(Claim { ip: ip.into(), ifindex: 3, mac: THEIRS, kind })
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
            (Arp { sender_mac: OURS, sender_ip: VIP4, ..request() }, Dropped::OwnFrame),
            (Arp { sender_mac: BROADCAST, sender_ip: VIP4, ..request() }, Dropped::BadSender),
            (Arp::gratuitous_request(VIP4, SIBLING), Dropped::OtherInterface),
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
            (Solicitation { source_link_layer: Some(BROADCAST), ..good }, Dropped::BadSender),
        ];
        for (frame, expected) in cases {
            assert_eq!(ndp(frame), Err(expected), "{frame:?}");
        }
        for (ip, mac, expected) in [
            (vip6(), OURS, Dropped::OwnFrame),
            (vip6(), SIBLING, Dropped::OtherInterface),
            (vip6(), BROADCAST, Dropped::BadSender),
            (other, THEIRS, Dropped::NotARequest),
        ] {
            let advertisement = Advertisement::unsolicited(ip, mac).emit();
            assert_eq!(responder().handle(&advertisement, 3, OURS), Err(expected));
        }
    }

    #[test]
    fn whoever_names_an_address_of_ours_is_heard_whatever_we_do_for_it() {
        use ClaimKind::{Announcement, Use};
        let other = Ipv4Addr::new(172, 25, 7, 101);
        let uses = Arp { sender_ip: VIP4, target_ip: other, ..request() };
        let to_us = Arp { operation: Operation::Reply, destination: OURS, target_mac: OURS, ..uses };
        let group = solicited_node("fd00:25:7::2:2:9".parse().unwrap());
        let mut asks = solicitation();
        asks.envelope = Envelope {
            source: vip6(),
            destination: group,
            destination_mac: group_mac(group),
            ..asks.envelope
        };
        asks.target = "fd00:25:7::2:2:9".parse().unwrap();
        let announced = Advertisement::unsolicited(vip6(), THEIRS);
        let solicited = Advertisement {
            envelope: Envelope { destination: client6(), destination_mac: OURS, ..announced.envelope },
            solicited: true,
            ..announced
        };
        let without_option = Advertisement { target_link_layer: None, ..announced };
        let cases = [
            (Arp::gratuitous_request(VIP4, THEIRS).emit(), claimed(VIP4, Announcement)),
            (Arp::gratuitous_reply(VIP4, THEIRS).emit(), claimed(VIP4, Announcement)),
            (uses.emit(), claimed(VIP4, Use)),
            (to_us.emit(), claimed(VIP4, Use)),
            (asks.emit(), claimed(vip6(), Use)),
            (announced.emit(), claimed(vip6(), Announcement)),
            (without_option.emit(), claimed(vip6(), Announcement)),
            (solicited.emit(), claimed(vip6(), Use)),
        ];
        for mode in [Mode::Listen, Mode::Probe, Mode::Answer, Mode::Announce] {
            for (frame, expected) in &cases {
                assert_eq!(in_mode(mode).handle(frame, 3, OURS), Err(*expected), "{mode:?} {frame:02x?}");
            }
        }
    }

    #[test]
    fn a_probe_is_a_claim_where_we_do_not_answer() {
        let arp = Arp { sender_ip: Ipv4Addr::UNSPECIFIED, ..request() };
        let envelope = Envelope { source: Ipv6Addr::UNSPECIFIED, ..solicitation().envelope };
        let ndp = Solicitation { envelope, source_link_layer: None, ..solicitation() };
        for (ip, frame) in [(IpAddr::from(VIP4), arp.emit()), (vip6().into(), ndp.emit())] {
            for mode in [Mode::Answer, Mode::Announce] {
                assert!(in_mode(mode).handle(&frame, 3, OURS).is_ok(), "{mode:?} {ip}");
            }
            for mode in [Mode::Listen, Mode::Probe] {
                let heard = in_mode(mode).handle(&frame, 3, OURS);
                assert_eq!(heard, Err(claimed(ip, ClaimKind::Probe)), "{mode:?} {ip}");
                // Our own probe, come back.
                assert_eq!(in_mode(mode).handle(&frame, 3, THEIRS), Err(Dropped::OwnFrame));
            }
        }
    }

    #[test]
    fn what_is_only_listened_for_or_probed_is_not_answered() {
        for mode in [Mode::Listen, Mode::Probe] {
            for frame in [request().emit(), solicitation().emit()] {
                assert_eq!(in_mode(mode).handle(&frame, 3, OURS).unwrap_err().reason(), "notAnnounced");
            }
            assert!(!in_mode(mode).announces(VIP4.into(), 3));
        }
    }

    #[test]
    fn a_released_address_falls_silent() {
        let mut responder = responder();
        responder.set(Arc::default());
        assert_eq!(responder.handle(&request().emit(), 3, OURS), Err(Dropped::NotAnnounced(VIP4.into())));
    }
}
