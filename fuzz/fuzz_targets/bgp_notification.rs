//! Any bytes as the body of a NOTIFICATION: one line of a log, and written as it was read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use patina_fuzz::bgp;
use patina_speaker_core::bgp::codec::{Negotiated, encode};
use patina_speaker_core::bgp::message::Message;

fuzz_target!(|body: &[u8]| {
    let Some(message) = bgp::message(3, body) else { return };
    let negotiated = Negotiated::default();
    let Ok(Some(Message::Notification(notification))) = bgp::read(&message, &negotiated) else { return };
    bgp::one_line(&notification.to_string());
    assert!(notification.text().is_none_or(|text| text.chars().count() <= 255));
    let mut out = Vec::new();
    assert_eq!(encode(&Message::Notification(notification), &negotiated, &mut out), Ok(()));
    assert_eq!(out, message);
});
