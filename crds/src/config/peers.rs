//! BGP peers.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::draft::{Draft, Place, Problems, present, selectors};
use super::pools::is_legacy;
use super::{Peer, PeerAddress, PeerAsn, Resources, duration};
use crate::config::duration::show;
use crate::selector::disjoint;
use crate::types::{self, BGPPeerSpec};

/// The only kind of Secret that holds a session password.
const BASIC_AUTH: &str = "kubernetes.io/basic-auth";
/// RFC 4271 4.2: "The Hold Time MUST be either zero or at least three seconds", in 16 bits of seconds.
const SHORTEST_HOLD: Duration = Duration::from_secs(3);
const LONGEST_HOLD: Duration = Duration::from_secs(65_535);
/// What the ConfigMap meant by none; the resources leave it to us.
pub(super) const LEGACY_HOLD: Duration = Duration::from_secs(90);

/// Checks every peer, and that no two of them are one session.
pub(super) fn build(
    drafts: &[Draft<BGPPeerSpec>],
    resources: &Resources,
    profiles: &[Draft<types::BFDProfileSpec>],
    problems: &mut Problems,
) -> Vec<Peer> {
    let mut peers: Vec<(usize, Peer)> = Vec::new();
    for (i, draft) in drafts.iter().enumerate() {
        let check = Check { place: &draft.place, spec: &draft.spec };
        if let Some(peer) = check.peer(&draft.name, resources, profiles, problems) {
            peers.push((i, peer));
        }
    }
    for (n, (i, peer)) in peers.iter().enumerate() {
        let Some(draft) = drafts.get(*i) else { continue };
        let earlier = || peers.iter().take(n).map(|(_, earlier)| earlier);
        let shares_a_node = |earlier: &Peer| !disjoint(&earlier.node_selectors, &peer.node_selectors);
        if let Some(earlier) = earlier().find(|earlier| same_session(earlier, peer) && shares_a_node(earlier))
        {
            let field = if matches!(peer.address, PeerAddress::Ip(_)) { "peerAddress" } else { "interface" };
            let message = format!(
                "{} port {} is the peer of {} ({:?}) already, on nodes that both may choose; peers need different \
                 addresses, ports, VRFs, source addresses or nodes",
                peer.address, peer.port, earlier.source, earlier.name
            );
            problems.error(&draft.place.object, draft.place.field(field), message);
        }
        // One speaker is one router. The ConfigMap comes from a time when it was one for each peer.
        if draft.place.legacy {
            continue;
        }
        let earlier = || earlier().filter(|earlier| !is_legacy(&earlier.source));
        let other_router = |earlier: &Peer| {
            matches!((earlier.router_id, peer.router_id), (Some(a), Some(b)) if a != b)
                && shares_a_node(earlier)
        };
        if let Some((other, theirs, ours)) =
            earlier().find(|other| other_router(other)).and_then(|p| Some((p, p.router_id?, peer.router_id?)))
        {
            let message = format!(
                "{ours}, but {} says {theirs}, on nodes that both may choose; a node has one router ID",
                other.source
            );
            problems.error(&draft.place.object, draft.place.field("routerID"), message);
        }
        let other_as = |earlier: &Peer| {
            earlier.vrf == peer.vrf && earlier.my_asn != peer.my_asn && shares_a_node(earlier)
        };
        if let Some(other) = earlier().find(|earlier| other_as(earlier)) {
            let message = format!(
                "{}, but {} says {} in the same VRF, on nodes that both may choose; a node has one AS number for each VRF \
                 (to show another one to this peer, set localASN)",
                peer.my_asn, other.source, other.my_asn
            );
            problems.error(&draft.place.object, draft.place.field("myASN"), message);
        }
    }
    peers.into_iter().map(|(_, peer)| peer).collect()
}

fn same_session(a: &Peer, b: &Peer) -> bool {
    a.address == b.address && a.port == b.port && a.vrf == b.vrf && a.source_address == b.source_address
}

struct Check<'a> {
    place: &'a Place,
    spec: &'a BGPPeerSpec,
}

impl Check<'_> {
    /// `None` when what identifies the session is wrong; all errors are reported either way.
    fn peer(
        &self,
        name: &str,
        resources: &Resources,
        profiles: &[Draft<types::BFDProfileSpec>],
        problems: &mut Problems,
    ) -> Option<Peer> {
        let spec = self.spec;
        let my_asn = self.my_asn(problems);
        let peer_asn = self.peer_asn(problems);
        let address = self.address(problems);
        let port = self.port(problems);
        let source_address = self.source_address(address.as_ref(), problems);
        let (hold_time, keepalive_time) = self.timers(problems);
        if spec.ebgp_multi_hop && my_asn.is_some() && peer_asn == my_asn.map(PeerAsn::Number) {
            let message = format!(
                "true, but the peer is in our own AS {}; multihop is for eBGP, remove the field (iBGP needs none)",
                my_asn.unwrap_or(0)
            );
            self.error("ebgpMultiHop", message, problems);
        }
        let local_asn =
            spec.local_asn.filter(|asn| *asn != 0).and_then(|asn| self.asn("localASN", asn, problems));
        let bfd_profile = present(&spec.bfd_profile).map(str::to_owned);
        if let Some(profile) = bfd_profile.as_ref().filter(|name| !profiles.iter().any(|p| p.name == **name))
        {
            let message = format!("there is no BFD profile {profile:?}; create it, or remove the field");
            let (field, missing) = (self.place.field("bfdProfile"), ("BFDProfile", profile.as_str()));
            problems.transient(&self.place.object, field, missing, message);
        }
        if spec.disable_mp {
            let field = self.place.field("disableMP");
            problems.notice(&self.place.object, format!("{field} is deprecated and has no effect"));
        }
        // Before what is needed is unwrapped, so that one error does not hide another.
        let connect_time = self.connect_time(problems);
        let router_id = self.router_id(problems);
        let node_selectors = selectors(self.place, "nodeSelectors", &spec.node_selectors, problems);
        let password = self.password(resources, problems);
        Some(Peer {
            name: name.to_owned(),
            source: self.place.object.clone(),
            my_asn: my_asn?,
            peer_asn: peer_asn?,
            local_asn,
            address: address?,
            port: port?,
            source_address,
            hold_time,
            keepalive_time,
            connect_time,
            router_id,
            node_selectors,
            password,
            bfd_profile,
            graceful_restart: spec.enable_graceful_restart,
            ebgp_multi_hop: spec.ebgp_multi_hop,
            vrf: present(&spec.vrf).map(str::to_owned),
            dual_stack_address_family: spec.dual_stack_address_family,
        })
    }

    fn error(&self, field: &str, message: impl Into<String>, problems: &mut Problems) {
        problems.error(&self.place.object, self.place.field(field), message);
    }

    fn asn(&self, field: &str, value: i64, problems: &mut Problems) -> Option<u32> {
        let asn = u32::try_from(value).ok().filter(|asn| *asn != 0);
        if asn.is_none() {
            let message = format!("{value} is not an AS number; allowed is 1 to {}", u32::MAX);
            self.error(field, message, problems);
        }
        asn
    }

    fn my_asn(&self, problems: &mut Problems) -> Option<u32> {
        self.asn("myASN", self.spec.my_asn, problems)
    }

    fn peer_asn(&self, problems: &mut Problems) -> Option<PeerAsn> {
        match (self.spec.peer_asn.filter(|asn| *asn != 0), present(&self.spec.dynamic_asn)) {
            (Some(asn), None) => self.asn("peerASN", asn, problems).map(PeerAsn::Number),
            (None, Some("internal")) => Some(PeerAsn::Internal),
            (None, Some("external")) => Some(PeerAsn::External),
            (None, Some(other)) => {
                let message = format!("{other:?} is unknown; allowed are internal and external");
                self.error("dynamicASN", message, problems);
                None
            }
            (Some(_), Some(_)) => {
                let message = "both peerASN and dynamicASN are set; exactly one of them is allowed";
                self.error("dynamicASN", message, problems);
                None
            }
            (None, None) => {
                let message = if self.place.legacy {
                    "the AS number of the peer is missing or 0; allowed is 1 to 4294967295"
                } else {
                    "neither peerASN (1 to 4294967295) nor dynamicASN is set; exactly one of them is needed"
                };
                self.error("peerASN", message, problems);
                None
            }
        }
    }

    fn address(&self, problems: &mut Problems) -> Option<PeerAddress> {
        match (present(&self.spec.peer_address), present(&self.spec.interface)) {
            (Some(text), None) => self.ip("peerAddress", text, problems).map(PeerAddress::Ip),
            (None, Some(name)) => Some(PeerAddress::Interface(name.to_owned())),
            (Some(_), Some(_)) => {
                let message = "both peerAddress and interface are set; exactly one of them is allowed";
                self.error("interface", message, problems);
                None
            }
            (None, None) => {
                let message = if self.place.legacy {
                    "the address of the peer is missing"
                } else {
                    "neither peerAddress nor interface is set; exactly one of them is needed"
                };
                self.error("peerAddress", message, problems);
                None
            }
        }
    }

    fn ip(&self, field: &str, text: &str, problems: &mut Problems) -> Option<IpAddr> {
        let ip = text.parse::<IpAddr>().ok().map(|ip| ip.to_canonical());
        if ip.is_none() {
            let message = format!("{text:?} is not an IP address; allowed are 192.0.2.1 and 2001:db8::1");
            self.error(field, message, problems);
        }
        ip
    }

    fn port(&self, problems: &mut Problems) -> Option<u16> {
        match self.spec.peer_port {
            None | Some(0) => Some(179),
            Some(value) => {
                let port = u16::try_from(value).ok();
                if port.is_none() {
                    let message = format!("{value} is not a TCP port; allowed is 1 to 65535");
                    self.error("peerPort", message, problems);
                }
                port
            }
        }
    }

    fn source_address(&self, peer: Option<&PeerAddress>, problems: &mut Problems) -> Option<IpAddr> {
        let source = self.ip("sourceAddress", present(&self.spec.source_address)?, problems)?;
        if let Some(PeerAddress::Ip(peer)) = peer
            && peer.is_ipv4() != source.is_ipv4()
        {
            let field = self.place.field("sourceAddress");
            let message = format!(
                "{field}: {source} and the peer {peer} are of different families; they will never connect"
            );
            problems.notice(&self.place.object, message);
        }
        Some(source)
    }

    fn router_id(&self, problems: &mut Problems) -> Option<Ipv4Addr> {
        let text = present(&self.spec.router_id)?;
        let id = match text.parse::<IpAddr>().map(|id| id.to_canonical()) {
            Ok(IpAddr::V4(id)) => Some(id),
            _ => None,
        };
        if id.is_none() {
            let message =
                format!("{text:?} is not an IPv4 address; a router ID is written as one (192.0.2.1)");
            self.error("routerID", message, problems);
        }
        id
    }

    fn duration(&self, field: &str, text: &Option<String>, problems: &mut Problems) -> Option<Duration> {
        let text = present(text)?;
        let parsed = duration::parse(text);
        if parsed.is_none() {
            let message =
                format!("{text:?} is not a duration; write a number with its unit, like 90s or 1m30s");
            self.error(field, message, problems);
        }
        parsed
    }

    /// Each timer follows from the other when only one is given; with neither, both are ours to choose.
    fn timers(&self, problems: &mut Problems) -> (Option<Duration>, Option<Duration>) {
        let hold = match &self.spec.hold_time {
            None if self.place.legacy => Some(LEGACY_HOLD),
            written => self.duration("holdTime", written, problems),
        };
        let keepalive = self.duration("keepaliveTime", &self.spec.keepalive_time, problems);
        let legal = |hold: Duration| hold.is_zero() || (SHORTEST_HOLD..=LONGEST_HOLD).contains(&hold);
        match (hold, keepalive) {
            (Some(hold), _) if !legal(hold) => {
                self.error(
                    "holdTime",
                    format!("{} is not allowed; allowed is 0s, or 3s to 65535s", show(hold)),
                    problems,
                );
            }
            (None, Some(keepalive)) if !legal(keepalive.saturating_mul(3)) => {
                let message = format!(
                    "{} makes a hold time of {} (three times as long); allowed for it is 0s, or 3s to 65535s",
                    show(keepalive),
                    show(keepalive.saturating_mul(3))
                );
                self.error("keepaliveTime", message, problems);
            }
            (Some(hold), Some(keepalive)) if keepalive > hold => {
                let message = format!(
                    "{} is longer than the hold time {}; allowed is up to that",
                    show(keepalive),
                    show(hold)
                );
                self.error("keepaliveTime", message, problems);
            }
            _ => {}
        }
        (
            hold.or(keepalive.map(|keepalive| keepalive.saturating_mul(3))),
            keepalive.or(hold.map(|hold| hold / 3)),
        )
    }

    fn connect_time(&self, problems: &mut Problems) -> Option<Duration> {
        let time = self.duration("connectTime", &self.spec.connect_time, problems)?;
        if time.subsec_nanos() != 0 || !(1..=65_535).contains(&time.as_secs()) {
            let message =
                format!("{} is not allowed; allowed are whole seconds from 1s to 65535s", show(time));
            self.error("connectTime", message, problems);
        }
        Some(time)
    }

    fn password(&self, resources: &Resources, problems: &mut Problems) -> Option<String> {
        let password = present(&self.spec.password).map(str::to_owned);
        let reference = self.spec.password_secret.as_ref();
        let Some(name) = reference.and_then(|reference| present(&reference.name)) else { return password };
        if password.is_some() {
            let message = "both password and passwordSecret are set; at most one of them is allowed";
            self.error("passwordSecret", message, problems);
            return password;
        }
        let home = &self.place.object.namespace;
        let namespace = reference.and_then(|reference| present(&reference.namespace)).unwrap_or(home);
        if namespace != home {
            let message = format!(
                "{namespace:?} is not read; the Secret must be in the namespace of the peer, {home:?}"
            );
            self.error("passwordSecret.namespace", message, problems);
            return None;
        }
        let Some(secret) = resources.secrets.get(name) else {
            let message = format!(
                "there is no Secret {name:?} in {namespace:?}; create one of type {BASIC_AUTH} with a key password"
            );
            let (field, missing) = (self.place.field("passwordSecret"), ("Secret", name));
            problems.transient(&self.place.object, field, missing, message);
            return None;
        };
        if secret.type_ != BASIC_AUTH {
            let message =
                format!("the Secret {name:?} is of type {:?}; allowed is {BASIC_AUTH}", secret.type_);
            self.error("passwordSecret", message, problems);
            return None;
        }
        if secret.password.is_none() {
            let message = format!("the Secret {name:?} has no key password");
            self.error("passwordSecret", message, problems);
        }
        secret.password.clone()
    }
}
