//! Any bytes as the body of an OPEN: refused, or written and read again as what was read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use patina_fuzz::bgp;
use patina_speaker_core::bgp::codec::{Negotiated, encode};
use patina_speaker_core::bgp::message::Message;

fuzz_target!(|body: &[u8]| {
    let Some(message) = bgp::message(1, body) else { return };
    let negotiated = Negotiated::default();
    let Ok(Some(Message::Open(mut open))) = bgp::read(&message, &negotiated) else { return };
    assert!(open.asn != 0 && !matches!(open.hold_time, 1 | 2) && !open.router_id.is_unspecified());
    open.capabilities.other.clear();
    let mut out = Vec::new();
    assert_eq!(encode(&Message::Open(open.clone()), &negotiated, &mut out), Ok(()));
    assert_eq!(bgp::read(&out, &negotiated), Ok(Some(Message::Open(open))));
});
