//! Any bytes as a frame of neighbour discovery, and the same with a checksum that is right: refused, or read, written and
//! read again as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use patina_speaker_core::l2::wire::ndp::Message;

fuzz_target!(|frame: &[u8]| {
    check(frame);
    check(&patina_fuzz::with_checksum(frame));
});

fn check(frame: &[u8]) {
    let again = match Message::parse(frame) {
        Ok(Message::Solicitation(solicitation)) => {
            // RFC 4861 7.1.1
            assert!(!solicitation.target.is_multicast() && frame[21] == 255);
            assert!(!solicitation.is_probe() || solicitation.source_link_layer.is_none());
            assert!(solicitation.answer([2, 0, 0, 0, 0, 9]).solicited != solicitation.is_probe());
            (solicitation.emit(), Message::Solicitation(solicitation))
        }
        Ok(Message::Advertisement(advertisement)) => {
            // RFC 4861 7.1.2
            assert!(!advertisement.target.is_multicast() && frame[21] == 255);
            assert!(!(advertisement.solicited && advertisement.envelope.destination.is_multicast()));
            (advertisement.emit(), Message::Advertisement(advertisement))
        }
        Err(malformed) => return assert!(!malformed.to_string().is_empty()),
    };
    assert_eq!(Message::parse(&again.0), Ok(again.1));
}
