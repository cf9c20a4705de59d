//! Any bytes as the body of a ROUTE-REFRESH: of four octets it is one, and written as it was read; of others an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use patina_fuzz::bgp;
use patina_speaker_core::bgp::codec::{Negotiated, encode};
use patina_speaker_core::bgp::message::Message;

fuzz_target!(|body: &[u8]| {
    let Some(message) = bgp::message(5, body) else { return };
    let negotiated = Negotiated::default();
    match bgp::read(&message, &negotiated) {
        Ok(Some(Message::RouteRefresh { family: None, .. })) => assert_eq!(body.len(), 4),
        Ok(Some(refresh)) => {
            let mut out = Vec::new();
            assert_eq!(encode(&refresh, &negotiated, &mut out), Ok(()));
            assert_eq!(out, message);
        }
        Ok(None) => panic!("a whole message"),
        Err(error) => {
            assert!(body.len() != 4 && matches!((error.code, error.subcode), (1, 2) | (7, 1)), "{error}")
        }
    }
});
