//! Which node can announce an address on which of its interfaces: what the speakers tell of them, put side by side.
//!
//! Of this node the snapshot's interfaces count, provided that it tells the others about its interfaces at all: what
//! they cannot know must not decide here either.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use patina_crds::net::{Family, to_number};

use super::interfaces::Selection;
use crate::view::{Member, Snapshot};

/// How well a node can announce an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reach {
    pub(super) link: Link,
    /// Nobody was reached through any of those interfaces.
    pub(super) isolated: bool,
}

/// By which interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Link {
    /// None that is usable, of those that the advertisements select.
    None,
    /// One without the address' subnet.
    Elsewhere,
    /// One in the address' subnet.
    Here,
}

impl Reach {
    /// Of a node that does not tell its interfaces.
    const UNKNOWN: Self = Self { link: Link::Here, isolated: false };
    const NONE: Self = Self { link: Link::None, isolated: false };
}

/// Addresses of one family that lie in the same of the subnets that there are.
pub(super) type Place = usize;

/// The interfaces of all nodes.
#[derive(Debug, Default)]
pub(super) struct Segments<'a> {
    /// By node; `None`: it does not tell.
    nodes: Vec<Option<Vec<Interface<'a>>>>,
    /// Every subnet by family, length and first address.
    subnets: BTreeMap<(Family, u8, u128), u32>,
    /// The lengths among them.
    lengths: BTreeSet<(Family, u8)>,
    /// By subnets, with the family in front.
    places: BTreeMap<Vec<u32>, Place>,
    /// The keys of `places`.
    listed: Vec<(Family, Vec<u32>)>,
}

#[derive(Debug)]
struct Interface<'a> {
    name: &'a str,
    v4: bool,
    v6: bool,
    isolated: bool,
    subnets: Vec<u32>,
}

impl<'a> Segments<'a> {
    pub(super) fn new(snapshot: &Snapshot<'a>) -> Self {
        let mut segments = Self::default();
        for node in snapshot.nodes {
            let member = snapshot.members.get(&node.name);
            let told = member.is_some_and(|member| member.interfaces.is_some());
            let interfaces = match member {
                Some(member) if told && node.name == snapshot.node => Some(segments.own(snapshot, member)),
                Some(member) if told => Some(segments.other(member)),
                _ => None,
            };
            segments.nodes.push(interfaces);
        }
        segments
    }

    fn own(&mut self, snapshot: &Snapshot<'a>, member: &Member) -> Vec<Interface<'a>> {
        let told = member.interfaces.as_deref().unwrap_or_default();
        let isolated = |name: &str| told.iter().any(|interface| interface.isolated && interface.name == name);
        let interfaces = snapshot.interfaces.iter();
        interfaces
            .map(|interface| Interface {
                name: &interface.name,
                v4: interface.unusable(Family::V4).is_none(),
                v6: interface.unusable(Family::V6).is_none(),
                isolated: isolated(&interface.name),
                subnets: self.numbers(&interface.addresses),
            })
            .collect()
    }

    fn other(&mut self, member: &'a Member) -> Vec<Interface<'a>> {
        let told = member.interfaces.as_deref().unwrap_or_default();
        told.iter()
            .map(|interface| Interface {
                name: &interface.name,
                v4: interface.up && interface.arp,
                v6: interface.up && interface.ndp,
                isolated: interface.isolated,
                subnets: self.numbers(&interface.subnets),
            })
            .collect()
    }

    fn numbers(&mut self, subnets: &BTreeSet<(IpAddr, u8)>) -> Vec<u32> {
        // A prefix of a single address says nothing about a segment.
        let telling = subnets.iter().filter(|(ip, length)| *length < Family::of(*ip).bits());
        let mut numbers = Vec::new();
        for (ip, length) in telling {
            let family = Family::of(*ip);
            self.lengths.insert((family, *length));
            let next = u32::try_from(self.subnets.len()).unwrap_or(u32::MAX);
            let subnet = (family, *length, first_number(*ip, *length));
            numbers.push(*self.subnets.entry(subnet).or_insert(next));
        }
        numbers
    }

    /// Where an address lies.
    pub(super) fn place(&mut self, ip: IpAddr) -> Place {
        let family = Family::of(ip);
        let mut key = vec![u32::from(family == Family::V6)];
        for (_, length) in self.lengths.range((family, 0)..=(family, u8::MAX)) {
            key.extend(self.subnets.get(&(family, *length, first_number(ip, *length))));
        }
        if let Some(place) = self.places.get(&key) {
            return *place;
        }
        let place = self.listed.len();
        self.listed.push((family, key.iter().skip(1).copied().collect()));
        self.places.insert(key, place);
        place
    }

    /// How well a node can announce what lies there on the interfaces that are selected.
    pub(super) fn reach(&self, node: usize, selection: &Selection, place: Place) -> Reach {
        let Some(Some(interfaces)) = self.nodes.get(node) else { return Reach::UNKNOWN };
        let Some((family, subnets)) = self.listed.get(place) else { return Reach::UNKNOWN };
        let usable = |interface: &&Interface<'_>| match family {
            Family::V4 => interface.v4,
            Family::V6 => interface.v6,
        };
        let selected = interfaces.iter().filter(usable).filter(|interface| selection.selects(interface.name));
        let mut best = Reach::NONE;
        for interface in selected {
            let here = interface.subnets.iter().any(|subnet| subnets.contains(subnet));
            let link = if here { Link::Here } else { Link::Elsewhere };
            if link > best.link {
                best = Reach { link, isolated: interface.isolated };
            } else if link == best.link {
                best.isolated &= interface.isolated;
            }
        }
        best
    }
}

/// The number of the first address of the subnet of this length that holds `ip`.
fn first_number(ip: IpAddr, length: u8) -> u128 {
    let host_bits = u32::from(Family::of(ip).bits().saturating_sub(length));
    to_number(ip) & u128::MAX.checked_shl(host_bits).unwrap_or(0)
}
