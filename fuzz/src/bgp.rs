//! BGP messages: framed, read, and judged by what holds of all of them.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use netgauze_bgp_pkt::BgpMessage;
use netgauze_bgp_pkt::nlri::{Ipv4UnicastAddress, Ipv6UnicastAddress};
use netgauze_bgp_pkt::path_attribute::{MpReach, MpUnreach, PathAttributeValue};
use netgauze_bgp_pkt::wire::deserializer::BgpParsingContext;
use netgauze_parse_utils::reader::SliceReader;
use netgauze_parse_utils::traits::ParseFromWithOneInput;
use patina_crds::net::Family;
use patina_speaker_core::bgp::codec::{Negotiated, Reader};
use patina_speaker_core::bgp::message::{Message, Notification, ReceivedUpdate};
use patina_speaker_core::intent::routes::Prefix;

/// What the bits of an octet say.
pub fn negotiated(bits: u8) -> Negotiated {
    let families = [(32, Family::V4), (64, Family::V6)];
    Negotiated {
        four_octet_asn: bits & 1 == 0,
        extended_message: bits & 2 != 0,
        ipv4_over_ipv6: bits & 4 != 0,
        internal: bits & 8 != 0,
        families: families.iter().filter(|(bit, _)| bits & bit == 0).map(|(_, family)| *family).collect(),
    }
}

/// A message with this body, if there can be one so long.
pub fn message(kind: u8, body: &[u8]) -> Option<Vec<u8>> {
    let mut message = vec![0xff; 16];
    message.extend(u16::try_from(19 + body.len()).ok()?.to_be_bytes());
    message.push(kind);
    message.extend(body);
    Some(message)
}

/// Reads a message alone.
pub fn read(message: &[u8], negotiated: &Negotiated) -> Result<Option<Message>, Notification> {
    let mut reader = Reader::default();
    reader.feed(message);
    let read = reader.next(negotiated);
    match &read {
        Ok(Some(_)) => assert_eq!(reader.next(negotiated), Ok(None), "no octet is left"),
        Ok(None) => {}
        Err(error) => {
            assert!(matches!(error.code, 1..=3 | 7), "{error}");
            one_line(&error.to_string());
        }
    }
    read
}

/// Fit for a log.
pub fn one_line(text: &str) {
    assert!(
        !text.is_empty() && text.chars().count() < 1000 && !text.chars().any(char::is_control),
        "{text:?}"
    );
}

/// What holds of all UPDATEs.
pub fn update(message: &[u8], negotiated: &Negotiated) {
    let Ok(Some(Message::Received(update))) = read(message, negotiated) else { return };
    let prefixes = update.announced.iter().chain(update.withdrawn.iter()).count();
    assert!(prefixes <= message.len() - 23, "a prefix takes an octet at least");
    assert!(update.end_of_rib.is_none() || prefixes == 0);
    let mut families: BTreeSet<_> = update.end_of_rib.into_iter().collect();
    families.extend(
        update.announced.iter().chain(update.withdrawn.iter()).map(|prefix| Family::of(prefix.address())),
    );
    assert!(families.is_subset(&negotiated.families));
    match &update.tolerated {
        Some(tolerated) => one_line(&tolerated.why),
        None => compare(message, &update, negotiated),
    }
}

/// Where nothing was wrong, netgauze has read the same, or refused it for reasons of its own.
fn compare(message: &[u8], update: &ReceivedUpdate, negotiated: &Negotiated) {
    let four_octets = negotiated.four_octet_asn;
    let mut context =
        BgpParsingContext::new(four_octets, HashMap::new(), HashMap::new(), true, true, true, true);
    let Ok(BgpMessage::Update(theirs)) = BgpMessage::parse(&mut SliceReader::new(message), &mut context)
    else {
        return;
    };
    let v4 = |address: &Ipv4UnicastAddress| {
        let net = address.network().address();
        Prefix::containing(IpAddr::V4(net.addr()), net.prefix_len())
    };
    let v6 = |address: &Ipv6UnicastAddress| {
        let net = address.network().address();
        Prefix::containing(IpAddr::V6(net.addr()), net.prefix_len())
    };
    let mut announced: Vec<_> = theirs.nlri().iter().map(v4).collect();
    let mut withdrawn: Vec<_> = theirs.withdraw_routes().iter().map(v4).collect();
    for attribute in theirs.path_attributes() {
        match attribute.value() {
            PathAttributeValue::MpReach(MpReach::Ipv4Unicast { nlri, .. }) => {
                announced.extend(nlri.iter().map(v4))
            }
            PathAttributeValue::MpReach(MpReach::Ipv6Unicast { nlri, .. }) => {
                announced.extend(nlri.iter().map(v6))
            }
            PathAttributeValue::MpUnreach(MpUnreach::Ipv4Unicast { nlri }) => {
                withdrawn.extend(nlri.iter().map(v4))
            }
            PathAttributeValue::MpUnreach(MpUnreach::Ipv6Unicast { nlri }) => {
                withdrawn.extend(nlri.iter().map(v6))
            }
            _ => {}
        }
    }
    // as two sets of families: ours stand together
    announced.sort_by_key(|prefix| Family::of(prefix.address()));
    withdrawn.sort_by_key(|prefix| Family::of(prefix.address()));
    assert!(update.announced.iter().eq(announced));
    assert!(update.withdrawn.iter().eq(withdrawn));
}
