//! ARP for IPv4 over Ethernet (RFC 826, RFC 5227).

use std::net::Ipv4Addr;

use pnet_packet::arp::{ArpHardwareType, ArpOperation, ArpPacket, MutableArpPacket};
use pnet_packet::ethernet::EtherType;

use super::{BROADCAST, ETHERTYPE_ARP, Mac, Malformed};

/// RFC 826 `ar$hrd$Ethernet`.
const HARDWARE_ETHERNET: u16 = 1;
/// EtherType of IPv4, which is also its ARP protocol number.
const PROTOCOL_IPV4: u16 = 0x0800;

/// RFC 826 `ar$op`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Who has the target address?
    Request,
    /// The sender has the sender address.
    Reply,
}

/// An ARP packet with the Ethernet addresses around it.
///
/// ```text
///  0                   1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// +-------------------------------+-------------------------------+
/// | hardware type (1)             | protocol type (0x0800)        |
/// +---------------+---------------+-------------------------------+
/// | hlen (6)      | plen (4)      | operation                     |
/// +---------------+---------------+-------------------------------+
/// | sender hardware address                                       |
/// +                               +-------------------------------+
/// |                               | sender protocol address       |
/// +-------------------------------+-------------------------------+
/// | (sender protocol address)     | target hardware address       |
/// +-------------------------------+                               +
/// |                                                               |
/// +---------------------------------------------------------------+
/// | target protocol address                                       |
/// +---------------------------------------------------------------+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Arp {
    /// Ethernet destination.
    pub destination: Mac,
    /// Ethernet source.
    pub source: Mac,
    /// Request or reply.
    pub operation: Operation,
    /// Sender hardware address.
    pub sender_mac: Mac,
    /// Sender protocol address; `0.0.0.0` in a probe (RFC 5227 1.1).
    pub sender_ip: Ipv4Addr,
    /// Target hardware address; means nothing in a request.
    pub target_mac: Mac,
    /// Target protocol address.
    pub target_ip: Ipv4Addr,
}

impl Arp {
    /// Reads a frame. Trailing bytes (padding to the smallest Ethernet frame) are ignored.
    ///
    /// # Errors
    /// Whatever is not an ARP request or reply for IPv4 over Ethernet.
    pub fn parse(frame: &[u8]) -> Result<Self, Malformed> {
        let (destination, source, payload) = super::split(frame, ETHERTYPE_ARP)?;
        let arp = ArpPacket::new(payload).ok_or(Malformed::Truncated)?;
        // RFC 826, packet reception: "?Do I have the hardware type in ar$hrd?", "[optionally check the hardware length
        // ar$hln]", "?Do I speak the protocol in ar$pro?", "[optionally check the protocol length ar$pln]". The fields
        // behind are where they are only when all four hold.
        if arp.get_hardware_type().0 != HARDWARE_ETHERNET {
            return Err(Malformed::ArpHardware(arp.get_hardware_type().0));
        }
        if arp.get_protocol_type().0 != PROTOCOL_IPV4 {
            return Err(Malformed::ArpProtocol(arp.get_protocol_type().0));
        }
        if (arp.get_hw_addr_len(), arp.get_proto_addr_len()) != (6, 4) {
            return Err(Malformed::ArpLengths(arp.get_hw_addr_len(), arp.get_proto_addr_len()));
        }
        let operation = match arp.get_operation().0 {
            1 => Operation::Request,
            2 => Operation::Reply,
            other => return Err(Malformed::ArpOperation(other)),
        };
        Ok(Self {
            destination,
            source,
            operation,
            sender_mac: arp.get_sender_hw_addr().into(),
            sender_ip: arp.get_sender_proto_addr(),
            target_mac: arp.get_target_hw_addr().into(),
            target_ip: arp.get_target_proto_addr(),
        })
    }

    /// The frame: 42 bytes, without padding (the driver pads where the wire needs it).
    #[must_use]
    pub fn emit(&self) -> Vec<u8> {
        let size = ArpPacket::minimum_packet_size();
        super::emit(self.destination, self.source, ETHERTYPE_ARP, size, |payload| {
            let mut arp = MutableArpPacket::new(payload)?;
            arp.set_hardware_type(ArpHardwareType(HARDWARE_ETHERNET));
            arp.set_protocol_type(EtherType(PROTOCOL_IPV4));
            arp.set_hw_addr_len(6);
            arp.set_proto_addr_len(4);
            arp.set_operation(ArpOperation(match self.operation {
                Operation::Request => 1,
                Operation::Reply => 2,
            }));
            arp.set_sender_hw_addr(self.sender_mac.into());
            arp.set_sender_proto_addr(self.sender_ip);
            arp.set_target_hw_addr(self.target_mac.into());
            arp.set_target_proto_addr(self.target_ip);
            Some(())
        })
    }

    /// The answer to this request: `mac` has the target address.
    ///
    /// RFC 826: "Swap hardware and protocol fields, putting the local hardware and protocol addresses in the sender
    /// fields. Set the ar$op field to ares_op$REPLY. Send the packet to the (new) target hardware address on the same
    /// hardware on which the request was received." A probe (sender 0.0.0.0) is answered in the same way.
    #[must_use]
    pub fn answer(&self, mac: Mac) -> Self {
        Self {
            destination: self.sender_mac,
            source: mac,
            operation: Operation::Reply,
            sender_mac: mac,
            sender_ip: self.target_ip,
            target_mac: self.sender_mac,
            target_ip: self.sender_ip,
        }
    }

    /// RFC 5227 3: "ARP Announcements are broadcast ARP Requests, with both sender and target IP address set to the
    /// host's newly selected address." The target hardware address should be zero.
    #[must_use]
    pub fn gratuitous_request(ip: Ipv4Addr, mac: Mac) -> Self {
        Self {
            destination: BROADCAST,
            source: mac,
            operation: Operation::Request,
            sender_mac: mac,
            sender_ip: ip,
            target_mac: [0; 6],
            target_ip: ip,
        }
    }

    /// RFC 5227 1.1: "an ARP Request packet, broadcast on the local link, with an all-zero 'sender IP address'. The
    /// 'sender hardware address' MUST contain the hardware address of the interface sending the packet. [...] The
    /// 'target hardware address' field is ignored and SHOULD be set to all zeroes."
    #[must_use]
    pub fn probe(ip: Ipv4Addr, mac: Mac) -> Self {
        Self { sender_ip: Ipv4Addr::UNSPECIFIED, ..Self::gratuitous_request(ip, mac) }
    }

    /// RFC 5944 4.6: in a gratuitous ARP reply "the Target Hardware Address is also set to the link-layer address to
    /// which this cache entry should be updated". Some stacks take only this form.
    #[must_use]
    pub fn gratuitous_reply(ip: Ipv4Addr, mac: Mac) -> Self {
        Self { operation: Operation::Reply, target_mac: mac, ..Self::gratuitous_request(ip, mac) }
    }

    /// Whether the sender claims the very address it asks for (RFC 5227 announcement, in either form).
    #[must_use]
    pub fn is_announcement(&self) -> bool {
        self.sender_ip == self.target_ip
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `arping -c1 -I eth0 172.25.7.100` as tcpdump -xx shows it, padded to 60 bytes as on a wire.
    const REQUEST: &str = "ffffffffffff 02000a000001 0806 0001 0800 06 04 0001 \
        02000a000001 ac190701 000000000000 ac190764 000000000000000000000000000000000000";

    pub(crate) fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    #[test]
    fn a_request_is_read_and_answered() {
        let request = Arp::parse(&bytes(REQUEST)).unwrap();
        assert_eq!(request.target_ip, Ipv4Addr::new(172, 25, 7, 100));
        assert_eq!(request.sender_ip, Ipv4Addr::new(172, 25, 7, 1));
        let answer = request.answer([2, 0, 0, 0, 0, 9]).emit();
        let expected = "02000a000001 020000000009 0806 0001 0800 06 04 0002 \
            020000000009 ac190764 02000a000001 ac190701";
        assert_eq!(answer, bytes(expected));
    }

    #[test]
    fn gratuitous_frames_are_those_of_the_rfcs() {
        let (ip, mac) = (Ipv4Addr::new(172, 25, 7, 100), [2, 0, 0, 0, 0, 9]);
        let request = "ffffffffffff 020000000009 0806 0001 0800 06 04 0001 \
            020000000009 ac190764 000000000000 ac190764";
        assert_eq!(Arp::gratuitous_request(ip, mac).emit(), bytes(request));
        let reply = "ffffffffffff 020000000009 0806 0001 0800 06 04 0002 \
            020000000009 ac190764 020000000009 ac190764";
        assert_eq!(Arp::gratuitous_reply(ip, mac).emit(), bytes(reply));
    }

    #[test]
    fn a_probe_is_that_of_the_rfc() {
        let probe = "ffffffffffff 020000000009 0806 0001 0800 06 04 0001 \
            020000000009 00000000 000000000000 ac190764";
        assert_eq!(Arp::probe(Ipv4Addr::new(172, 25, 7, 100), [2, 0, 0, 0, 0, 9]).emit(), bytes(probe));
    }

    #[test]
    fn each_wrong_field_is_named() {
        let cases: [(usize, u8, Malformed); 7] = [
            (13, 0x00, Malformed::EtherType(0x0800)),
            (15, 6, Malformed::ArpHardware(6)),
            (17, 0x01, Malformed::ArpProtocol(0x0801)),
            (18, 8, Malformed::ArpLengths(8, 4)),
            (19, 16, Malformed::ArpLengths(6, 16)),
            (21, 3, Malformed::ArpOperation(3)),
            (20, 1, Malformed::ArpOperation(0x0101)),
        ];
        for (at, value, expected) in cases {
            let mut frame = bytes(REQUEST);
            frame[at] = value;
            assert_eq!(Arp::parse(&frame), Err(expected), "byte {at} = {value}");
        }
    }

    #[test]
    fn every_truncation_is_noticed() {
        let frame = bytes(REQUEST);
        for length in 0..42 {
            assert_eq!(Arp::parse(&frame[..length]), Err(Malformed::Truncated), "{length} bytes");
        }
        assert!(Arp::parse(&frame[..42]).is_ok());
    }
}
