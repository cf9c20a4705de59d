//! Address arithmetic: families and inclusive address ranges.
//!
//! A range, not a CIDR, is the unit of a pool: `a-b` and CIDR input both become one [`AddressRange`].

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnetwork::IpNetwork;

/// IPv4 or IPv6. `V4 < V6`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    #[must_use]
    pub fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// Bits of an address of this family: 32 or 128.
    #[must_use]
    pub fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// The number of an address: 0 is `0.0.0.0` or `::`.
#[must_use]
pub fn to_number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

/// The address with this number; `None` for an IPv4 number above 2^32 - 1.
#[must_use]
pub fn from_number(family: Family, number: u128) -> Option<IpAddr> {
    match family {
        Family::V4 => u32::try_from(number).ok().map(|n| IpAddr::V4(Ipv4Addr::from_bits(n))),
        Family::V6 => Some(IpAddr::V6(Ipv6Addr::from_bits(number))),
    }
}

/// Why a text is not an address range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// Neither CIDR nor `start-end`.
    #[error("{0:?} is neither a CIDR (192.0.2.0/24) nor a range (192.0.2.10-192.0.2.20)")]
    Unparsable(String),
    /// A single address without a prefix length.
    #[error("{0:?} is a single address without a prefix length; write {0}/{1}")]
    BareAddress(String, u8),
    /// Prefix length too long or not a number.
    #[error("{0:?} has an invalid prefix length; allowed is 0 to {1}")]
    PrefixLength(String, u8),
    /// `end` comes before `start`.
    #[error("{0:?} runs backwards; the first address must not be after the last")]
    Backwards(String),
    /// `start` and `end` are of different families.
    #[error("{0:?} mixes IPv4 and IPv6; both ends must be of one family")]
    MixedFamilies(String),
}

/// An inclusive range of addresses of one family. Equality and order are those of the addresses, not of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressRange {
    family: Family,
    first: u128,
    last: u128,
}

impl AddressRange {
    /// The range from `first` to `last`, both included.
    ///
    /// # Errors
    /// Different families, or `last` before `first`.
    pub fn new(first: IpAddr, last: IpAddr) -> Result<Self, RangeError> {
        let text = || format!("{first}-{last}");
        if Family::of(first) != Family::of(last) {
            return Err(RangeError::MixedFamilies(text()));
        }
        if to_number(last) < to_number(first) {
            return Err(RangeError::Backwards(text()));
        }
        Ok(Self { family: Family::of(first), first: to_number(first), last: to_number(last) })
    }

    /// The range of one address.
    #[must_use]
    pub fn single(ip: IpAddr) -> Self {
        Self { family: Family::of(ip), first: to_number(ip), last: to_number(ip) }
    }

    /// The family of every address in it.
    #[must_use]
    pub fn family(&self) -> Family {
        self.family
    }

    /// The number ([`to_number`]) of the first address.
    #[must_use]
    pub fn first_number(&self) -> u128 {
        self.first
    }

    /// The number of the last address.
    #[must_use]
    pub fn last_number(&self) -> u128 {
        self.last
    }

    /// First address.
    #[must_use]
    pub fn first(&self) -> IpAddr {
        self.address(self.first)
    }

    /// Last address.
    #[must_use]
    pub fn last(&self) -> IpAddr {
        self.address(self.last)
    }

    /// How many addresses; saturates at `u128::MAX` for `::/0`.
    #[must_use]
    pub fn len(&self) -> u128 {
        (self.last - self.first).saturating_add(1)
    }

    /// Never: a range has at least one address.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Whether `ip` lies in it.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        Family::of(ip) == self.family && (self.first..=self.last).contains(&to_number(ip))
    }

    /// Whether the two share an address.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.family == other.family && self.first <= other.last && other.first <= self.last
    }

    /// The fewest CIDRs that make up the range, ascending, as (first number, prefix length).
    #[must_use]
    pub fn cidrs(&self) -> Vec<(u128, u8)> {
        let bits = u32::from(self.family.bits());
        let mut out = Vec::new();
        let mut at = self.first;
        loop {
            let align = if at == 0 { bits } else { at.trailing_zeros().min(bits) };
            let size = (self.last - at).checked_add(1).map_or(bits, u128::ilog2).min(align);
            out.push((at, self.family.bits() - size as u8));
            match at.checked_add(1u128.checked_shl(size).unwrap_or(0)) {
                Some(next) if next > at && next <= self.last => at = next,
                _ => return out,
            }
        }
    }

    fn address(&self, number: u128) -> IpAddr {
        match self.family {
            // `first` and `last` of an IPv4 range come from IPv4 addresses, so the upper bits are zero.
            Family::V4 => IpAddr::V4(Ipv4Addr::from_bits(number as u32)),
            Family::V6 => IpAddr::V6(Ipv6Addr::from_bits(number)),
        }
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cidrs().as_slice() {
            [(_, prefix)] => write!(f, "{}/{prefix}", self.first()),
            _ => write!(f, "{}-{}", self.first(), self.last()),
        }
    }
}

impl FromStr for AddressRange {
    type Err = RangeError;

    /// `192.0.2.0/24` (host bits are masked, as MetalLB does) or `192.0.2.10-192.0.2.20`, spaces around the dash allowed.
    fn from_str(text: &str) -> Result<Self, RangeError> {
        let text = text.trim();
        let unparsable = || RangeError::Unparsable(text.to_owned());
        if let Some((first, last)) = text.split_once('-') {
            let end = |text: &str| text.trim().parse::<IpAddr>().map_err(|_| unparsable());
            // Go has one form for 192.0.2.1 and ::ffff:192.0.2.1.
            return Self::new(end(first)?.to_canonical(), end(last)?.to_canonical());
        }
        let Some((address, prefix)) = text.split_once('/') else {
            return match text.parse::<IpAddr>() {
                Ok(ip) => Err(RangeError::BareAddress(text.to_owned(), Family::of(ip).bits())),
                Err(_) => Err(unparsable()),
            };
        };
        let ip: IpAddr = address.parse().map_err(|_| unparsable())?;
        let bad_prefix = || RangeError::PrefixLength(text.to_owned(), Family::of(ip).bits());
        if prefix.is_empty() || !prefix.bytes().all(|b| b.is_ascii_digit()) {
            return Err(bad_prefix());
        }
        let prefix: u8 = prefix.parse().map_err(|_| bad_prefix())?;
        let (ip, prefix) = match prefix.checked_sub(96) {
            Some(inner) if ip.to_canonical() != ip => (ip.to_canonical(), inner),
            _ => (ip, prefix),
        };
        let net = IpNetwork::new(ip, prefix).map_err(|_| bad_prefix())?;
        let (first, last) = match net {
            IpNetwork::V4(net) => (IpAddr::V4(net.network()), IpAddr::V4(net.broadcast())),
            IpNetwork::V6(net) => (IpAddr::V6(net.network()), IpAddr::V6(net.broadcast())),
        };
        Self::new(first, last)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(text: &str) -> AddressRange {
        text.parse().unwrap()
    }

    #[test]
    fn cidr_host_bits_are_masked() {
        assert_eq!(range("192.0.2.77/24"), range("192.0.2.0-192.0.2.255"));
        assert_eq!(range("2001:db8::5/64").first(), "2001:db8::".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn an_ipv4_address_in_ipv6_clothes_is_ipv4() {
        assert_eq!(range("::ffff:192.0.2.0/120"), range("192.0.2.0/24"));
        assert_eq!(range("::ffff:192.0.2.5-192.0.2.9"), range("192.0.2.5-192.0.2.9"));
        assert_eq!(range("::ffff:0:0/90").family(), Family::V6);
    }

    #[test]
    fn a_range_is_decomposed_into_the_fewest_cidrs() {
        let masks: Vec<u8> = range("172.25.7.100-172.25.7.250").cidrs().into_iter().map(|c| c.1).collect();
        assert_eq!(masks, [30, 29, 28, 25 + 1, 27, 28, 29, 31, 32]);
    }

    #[test]
    fn the_whole_space_is_one_cidr() {
        assert_eq!(range("::/0").cidrs(), [(0, 0)]);
        assert_eq!(range("0.0.0.0/0").cidrs(), [(0, 0)]);
        assert_eq!(range("0.0.0.0/0").len(), 1 << 32);
    }

    #[test]
    fn bad_texts_say_what_is_wrong() {
        use RangeError::*;
        type Expected = fn(&RangeError) -> bool;
        let cases: [(&str, Expected); 8] = [
            ("192.0.2.1", |e| matches!(e, BareAddress(_, 32))),
            ("192.0.2.0/33", |e| matches!(e, PrefixLength(_, 32))),
            ("192.0.2.0/", |e| matches!(e, PrefixLength(_, 32))),
            ("192.0.2.0/+4", |e| matches!(e, PrefixLength(_, 32))),
            ("192.0.2.9-192.0.2.1", |e| matches!(e, Backwards(_))),
            ("192.0.2.9-2001:db8::1", |e| matches!(e, MixedFamilies(_))),
            ("pool", |e| matches!(e, Unparsable(_))),
            ("", |e| matches!(e, Unparsable(_))),
        ];
        for (text, expected) in cases {
            let error = text.parse::<AddressRange>().unwrap_err();
            assert!(expected(&error), "{text:?} gave {error:?}");
        }
    }

    proptest! {
        #[test]
        fn parsing_is_total(text in ".{0,60}") {
            let _ = text.parse::<AddressRange>();
        }

        #[test]
        fn cidrs_cover_the_range_exactly(a in any::<u128>(), b in any::<u128>(), v4 in any::<bool>()) {
            let family = if v4 { Family::V4 } else { Family::V6 };
            let cut = |n: u128| if v4 { n & 0xffff_ffff } else { n };
            let (first, last) = (cut(a).min(cut(b)), cut(a).max(cut(b)));
            let range = AddressRange::new(
                from_number(family, first).unwrap(),
                from_number(family, last).unwrap(),
            ).unwrap();
            let mut next = Some(first);
            for (start, prefix) in range.cidrs() {
                prop_assert_eq!(Some(start), next);
                let size = u32::from(family.bits() - prefix);
                let end = start + (1u128.checked_shl(size).unwrap_or(0).wrapping_sub(1));
                prop_assert!(end <= last);
                next = end.checked_add(1);
            }
            prop_assert_eq!(next, last.checked_add(1));
        }

        #[test]
        fn text_round_trips(a in any::<u128>(), b in any::<u128>()) {
            let range = AddressRange::new(
                from_number(Family::V6, a.min(b)).unwrap(),
                from_number(Family::V6, a.max(b)).unwrap(),
            ).unwrap();
            prop_assert_eq!(range.to_string().parse::<AddressRange>().unwrap(), range);
        }
    }
}
