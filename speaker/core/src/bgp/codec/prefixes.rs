//! NLRI: a length in bits, and as many octets of the address as it needs (RFC 4271 section 4.3).

use std::net::IpAddr;

use patina_crds::net::Family;

use crate::intent::routes::Prefix;

/// A field full of prefixes, or in words why it is not one.
pub(super) fn read(mut field: &[u8], family: Family) -> Result<Vec<Prefix>, &'static str> {
    let mut prefixes = Vec::new();
    // RFC 7606 section 5.3: incorrect "if ... the length of any of the included NLRI is greater than 32 [128]", or "when
    // parsing NLRI contained in the field, the length of the last NLRI found exceeds the amount of unconsumed data".
    while let Some((&length, rest)) = field.split_first() {
        if length > family.bits() {
            return Err("a prefix is longer than an address");
        }
        let octets = usize::from(length.div_ceil(8));
        let Some((address, rest)) = rest.split_at_checked(octets) else {
            return Err("the last prefix is cut off");
        };
        // RFC 4271 section 4.3: "Note that the value of trailing bits is irrelevant."
        prefixes.push(Prefix::containing(padded(address, family), length));
        field = rest;
    }
    Ok(prefixes)
}

/// No unicast address is in it: RFC 4271 section 6.3, "semantically incorrect (e.g., an unexpected multicast IP address)".
pub(super) fn is_unicast(prefix: &Prefix) -> bool {
    match prefix.address() {
        // 224/4 and beyond: multicast, reserved, broadcast. Host bits are zero, so shorter prefixes begin before it.
        IpAddr::V4(ip) => ip.octets()[0] < 224,
        IpAddr::V6(ip) => !ip.is_multicast(),
    }
}

fn padded(address: &[u8], family: Family) -> IpAddr {
    let mut whole = [0; 16];
    for (to, from) in whole.iter_mut().zip(address) {
        *to = *from;
    }
    match family {
        Family::V4 => IpAddr::from([whole[0], whole[1], whole[2], whole[3]]),
        Family::V6 => IpAddr::from(whole),
    }
}

/// Octets on the wire.
pub(super) fn size(prefix: &Prefix) -> usize {
    1 + usize::from(prefix.length().div_ceil(8))
}

/// Appends one.
pub(super) fn encode(prefix: &Prefix, out: &mut Vec<u8>) {
    out.push(prefix.length());
    let octets = size(prefix) - 1;
    match prefix.address() {
        IpAddr::V4(ip) => out.extend(ip.octets().iter().take(octets)),
        IpAddr::V6(ip) => out.extend(ip.octets().iter().take(octets)),
    }
}
