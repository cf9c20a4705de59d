//! An attribute of any type, flags and value among good ones: whatever is wrong with it, only those of RFC 4760, a second one
//! of these and well-known ones that nobody knows end the session (RFC 7606).
#![no_main]

use libfuzzer_sys::fuzz_target;
use patina_fuzz::bgp;
use patina_speaker_core::bgp::message::{Message, Tolerance};

/// ORIGIN, AS_PATH (empty), NEXT_HOP, LOCAL_PREF.
const GOOD: [&[u8]; 4] =
    [&[0x40, 1, 1, 0], &[0x40, 2, 0], &[0x40, 3, 4, 192, 0, 2, 1], &[0x40, 5, 4, 0, 0, 0, 100]];

fuzz_target!(|data: &[u8]| {
    let [bits, flags, code, value @ ..] = data else { return };
    let negotiated = bgp::negotiated(*bits);
    let mut attributes = vec![flags | 0x10, *code];
    let Ok(length) = u16::try_from(value.len()) else { return };
    attributes.extend(length.to_be_bytes());
    attributes.extend(value);
    for good in GOOD.iter().filter(|good| good[1] != *code && (good[1] != 5 || negotiated.internal)) {
        attributes.extend(*good);
    }
    let mut body = vec![0, 0];
    let Ok(length) = u16::try_from(attributes.len()) else { return };
    body.extend(length.to_be_bytes());
    body.extend(&attributes);
    body.extend([24, 203, 0, 113]);
    let Some(message) = bgp::message(2, &body) else { return };
    bgp::update(&message, &negotiated);
    match bgp::read(&message, &negotiated) {
        Ok(Some(Message::Received(update))) => {
            let withdrawn =
                update.tolerated.is_some_and(|tolerated| tolerated.how == Tolerance::TreatAsWithdraw);
            assert!(!withdrawn || update.announced.is_empty());
        }
        Ok(other) => panic!("{other:?}"),
        Err(error) => match (error.code, error.subcode) {
            (3, 2) => assert!(flags & 0x80 == 0),
            (3, 9) => assert!(matches!(code, 14 | 15)),
            (1, 2) => assert!(message.len() > 4096),
            _ => panic!("attribute {code}: {error}"),
        },
    }
});
