//! Any bytes as the body of an UPDATE, behind an octet that says what was negotiated: a NOTIFICATION, or prefixes of
//! negotiated families, no more than there are octets; and where nothing was tolerated, netgauze reads the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use patina_fuzz::bgp;

fuzz_target!(|data: &[u8]| {
    let Some((bits, body)) = data.split_first() else { return };
    let Some(message) = bgp::message(2, body) else { return };
    bgp::update(&message, &bgp::negotiated(*bits));
});
