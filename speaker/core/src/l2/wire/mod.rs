//! Frames: bytes are checked once, here, into values; values become bytes here.
//!
//! Parsing is total: any bytes give a value or a [`Malformed`], never a panic. One path serves both families: the shell
//! captures whole Ethernet frames and sends whole Ethernet frames.
//!
//! ```text
//!  0                 6                12      14
//! +-----------------+-----------------+-------+------------------
//! | destination MAC | source MAC      | type  | ARP or IPv6 ...
//! +-----------------+-----------------+-------+------------------
//! ```
//!
//! No 802.1Q header: VLANs are devices of their own, where frames come without their tag.
#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

pub mod arp;
pub mod ndp;

use std::fmt;

use pnet_packet::ethernet::{EtherType, EthernetPacket, MutableEthernetPacket};
use pnet_packet::{MutablePacket, Packet};

/// An Ethernet address.
pub type Mac = [u8; 6];

/// To all stations.
pub const BROADCAST: Mac = [0xff; 6];

/// EtherType of ARP.
pub const ETHERTYPE_ARP: u16 = 0x0806;
/// EtherType of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;

/// Bytes of an Ethernet header.
pub(crate) const ETHERNET_HEADER: usize = 14;

/// Whether a MAC can be the address of one station: the group bit is clear and it is not all zeroes.
#[must_use]
pub fn is_station(mac: Mac) -> bool {
    let [first, ..] = mac;
    first & 1 == 0 && mac != [0; 6]
}

/// The EtherType of a frame; `None`: shorter than an Ethernet header.
#[must_use]
pub fn ethertype(frame: &[u8]) -> Option<u16> {
    EthernetPacket::new(frame).map(|ethernet| ethernet.get_ethertype().0)
}

/// Why bytes are not a frame that we understand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Malformed {
    /// Ends before its headers do.
    #[error("the frame ends before its headers do")]
    Truncated,
    /// Another EtherType.
    #[error("EtherType {0:#06x} is neither ARP nor IPv6")]
    EtherType(u16),
    /// RFC 826 `ar$hrd` is not Ethernet (1).
    #[error("ARP hardware type {0} is not Ethernet")]
    ArpHardware(u16),
    /// RFC 826 `ar$pro` is not IPv4 (0x0800).
    #[error("ARP protocol {0:#06x} is not IPv4")]
    ArpProtocol(u16),
    /// RFC 826 `ar$hln`, `ar$pln` are not 6 and 4.
    #[error("ARP address lengths {0} and {1} are not 6 and 4")]
    ArpLengths(u8, u8),
    /// RFC 826 `ar$op` is neither request nor reply.
    #[error("ARP operation {0} is neither request nor reply")]
    ArpOperation(u16),
    /// Not version 6.
    #[error("IP version {0} in an IPv6 frame")]
    IpVersion(u8),
    /// Something other than ICMPv6 follows the IPv6 header.
    #[error("IPv6 next header {0} is not ICMPv6")]
    NextHeader(u8),
    /// A source that cannot be one.
    #[error("the IPv6 source is a group")]
    MulticastSource,
    /// RFC 4861 7.1: passed through a router.
    #[error("hop limit {0} is not 255")]
    HopLimit(u8),
    /// ICMPv6 checksum.
    #[error("the ICMPv6 checksum is wrong")]
    Checksum,
    /// Neither solicitation nor advertisement.
    #[error("ICMPv6 type {0} is neither a neighbour solicitation nor an advertisement")]
    IcmpType(u8),
    /// RFC 4861 7.1: code is not 0.
    #[error("ICMPv6 code {0} is not 0")]
    IcmpCode(u8),
    /// RFC 4861 7.1: shorter than 24 bytes.
    #[error("{0} bytes of ICMPv6 are fewer than 24")]
    IcmpLength(usize),
    /// RFC 4861 7.1: the target is a group.
    #[error("the target is a group")]
    MulticastTarget,
    /// RFC 4861 7.1: an option of length 0, or one that runs over the end.
    #[error("an option is empty or runs over the end")]
    OptionLength,
    /// A link-layer address option that does not hold an Ethernet address.
    #[error("the link-layer address option does not hold an Ethernet address")]
    LinkLayerOption,
    /// RFC 4861 7.1.1: from `::`, but not to a solicited-node group, or with a link-layer address.
    #[error("from the unspecified address, but not as duplicate address detection asks")]
    UnspecifiedSource,
    /// RFC 4861 7.1.2: solicited, but sent to a group.
    #[error("a solicited advertisement to a group")]
    SolicitedToGroup,
}

/// A MAC for people: `02:00:00:00:00:01`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MacText(pub Mac);

impl fmt::Display for MacText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            write!(f, "{}{byte:02x}", if i > 0 { ":" } else { "" })?;
        }
        Ok(())
    }
}

/// Lays out an Ethernet frame of exactly `payload` bytes behind the header and lets `fill` write them.
///
/// `fill` answers `None` only when the payload is shorter than the packet it writes, which its callers rule out by
/// passing that packet's size; the frame would then be empty. The tests of `arp` and `ndp` emit every kind of frame.
fn emit(
    destination: Mac,
    source: Mac,
    ethertype: u16,
    payload: usize,
    fill: impl FnOnce(&mut [u8]) -> Option<()>,
) -> Vec<u8> {
    let mut frame = vec![0; ETHERNET_HEADER + payload];
    let filled = MutableEthernetPacket::new(&mut frame).and_then(|mut ethernet| {
        ethernet.set_destination(destination.into());
        ethernet.set_source(source.into());
        ethernet.set_ethertype(EtherType(ethertype));
        fill(ethernet.payload_mut())
    });
    if filled.is_none() {
        frame.clear();
    }
    frame
}

/// Destination, source and payload of a frame with this EtherType.
fn split(frame: &[u8], ethertype: u16) -> Result<(Mac, Mac, &[u8]), Malformed> {
    let ethernet = EthernetPacket::new(frame).ok_or(Malformed::Truncated)?;
    if ethernet.get_ethertype().0 != ethertype {
        return Err(Malformed::EtherType(ethernet.get_ethertype().0));
    }
    let payload = frame.get(ETHERNET_HEADER..).ok_or(Malformed::Truncated)?;
    debug_assert_eq!(payload, ethernet.payload());
    Ok((ethernet.get_destination().into(), ethernet.get_source().into(), payload))
}
