//! NLRI: a length in bits, and as many octets of the address as it needs (RFC 4271 section 4.3).

use std::net::IpAddr;

use patina_crds::net::Family;

use crate::bgp::message::Prefixes;
use crate::intent::routes::Prefix;

/// The prefixes of a field, one after the other; an error is the last item, in words.
#[derive(Clone, Debug)]
pub(in crate::bgp) struct Iter<'a> {
    field: &'a [u8],
    family: Family,
}

impl<'a> Iter<'a> {
    pub(in crate::bgp) fn new(field: &'a [u8], family: Family) -> Self {
        Self { field, family }
    }

    /// RFC 7606 section 5.3: incorrect "if ... the length of any of the included NLRI is greater than 32 \[128\]", or "when
    /// parsing NLRI contained in the field, the length of the last NLRI found exceeds the amount of unconsumed data".
    fn cut(&mut self, length: u8, rest: &'a [u8]) -> Result<Prefix, &'static str> {
        if length > self.family.bits() {
            return Err("a prefix is longer than an address");
        }
        let octets = usize::from(length.div_ceil(8));
        let (address, rest) = rest.split_at_checked(octets).ok_or("the last prefix is cut off")?;
        self.field = rest;
        // RFC 4271 section 4.3: "Note that the value of trailing bits is irrelevant."
        Ok(Prefix::containing(padded(address, self.family), length))
    }
}

impl Iterator for Iter<'_> {
    type Item = Result<Prefix, &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        let (&length, rest) = self.field.split_first()?;
        let prefix = self.cut(length, rest);
        if prefix.is_err() {
            self.field = &[];
        }
        Some(prefix)
    }
}

/// All prefixes of a field, or in words why it is not one.
pub(super) fn read(field: &[u8], family: Family) -> Result<Prefixes, &'static str> {
    select(field, family, |_| true)
}

/// Those of unicast addresses, and whether there were others.
pub(super) fn read_unicast(field: &[u8], family: Family) -> Result<(Prefixes, bool), &'static str> {
    let mut others = false;
    let prefixes = select(field, family, |prefix| {
        others |= !is_unicast(prefix);
        is_unicast(prefix)
    })?;
    Ok((prefixes, others))
}

fn select(
    field: &[u8],
    family: Family,
    mut keep: impl FnMut(&Prefix) -> bool,
) -> Result<Prefixes, &'static str> {
    let mut prefixes = Prefixes::with_room(family, field.len());
    for prefix in Iter::new(field, family) {
        let prefix = prefix?;
        if keep(&prefix) {
            prefixes.push(&prefix);
        }
    }
    Ok(prefixes)
}

/// No unicast address is in it: RFC 4271 section 6.3, "semantically incorrect (e.g., an unexpected multicast IP address)".
fn is_unicast(prefix: &Prefix) -> bool {
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
pub(in crate::bgp) fn encode(prefix: &Prefix, out: &mut Vec<u8>) {
    out.push(prefix.length());
    let octets = size(prefix) - 1;
    match prefix.address() {
        IpAddr::V4(ip) => out.extend(ip.octets().iter().take(octets)),
        IpAddr::V6(ip) => out.extend(ip.octets().iter().take(octets)),
    }
}
