//! Addresses and ranges: a text that is read and written means the same when it is read again, the first address is not
//! after the last, and the CIDRs of a range cover it exactly.
#![no_main]

use std::net::IpAddr;

use libfuzzer_sys::fuzz_target;
use patina_crds::net::{AddressRange, Family, from_number, to_number};

fuzz_target!(|text: &str| {
    if let Ok(ip) = text.parse::<IpAddr>() {
        assert_eq!(from_number(Family::of(ip), to_number(ip)), Some(ip));
        assert!(AddressRange::single(ip).contains(ip));
    }
    let Ok(range) = text.parse::<AddressRange>() else { return };
    assert!(to_number(range.first()) <= to_number(range.last()));
    assert_eq!(Family::of(range.first()), range.family());
    assert_eq!(range.to_string().parse(), Ok(range), "{range}");
    assert_eq!(AddressRange::new(range.first(), range.last()), Ok(range));
    let mut next = Some(range.first_number());
    for (start, prefix) in range.cidrs() {
        assert_eq!(next, Some(start), "a gap or an overlap in {range}");
        let host_bits = u32::from(range.family().bits() - prefix);
        let last = start + 1_u128.checked_shl(host_bits).map_or(u128::MAX, |size| size - 1);
        assert!(last <= range.last_number(), "{range}: /{prefix} reaches too far");
        next = last.checked_add(1);
    }
    assert_eq!(next, range.last_number().checked_add(1), "{range} is not covered");
});
