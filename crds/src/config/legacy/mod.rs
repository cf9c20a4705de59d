//! The ConfigMap of MetalLB 0.9 to 0.12, read as strictly as it was then: data key `config`, unknown keys are errors.

mod reader;

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

use super::draft::{AliasDraft, Draft, Drafts, Place, Problems};
use super::{LegacyConfigMap, ObjectRef};
use crate::types::{
    BFDProfileSpec, BGPAdvertisementSpec, BGPPeerSpec, IPAddressPoolSpec, L2AdvertisementSpec,
};
use crate::yaml::{self, Node};
use reader::MapReader;

const U16: i64 = u16::MAX as i64;
const U32: i64 = u32::MAX as i64;

/// Reads the ConfigMap into drafts; what they mean is checked together with the resources.
pub(super) fn read(source: &LegacyConfigMap, problems: &mut Problems) -> Drafts {
    let object = ObjectRef {
        kind: "ConfigMap".to_owned(),
        namespace: source.namespace.clone(),
        name: source.name.clone(),
    };
    let mut drafts = Drafts::default();
    let Some(data) = &source.data else {
        let message =
            "the key \"config\" is missing; it must hold the configuration (an empty text is an empty one)";
        problems.error(&object, "data.config", message);
        return drafts;
    };
    let mut documents = yaml::documents(data).into_iter();
    let first = documents.next();
    if documents.next().is_some() {
        problems.notice(&object, "data.config has several YAML documents; only the first is read");
    }
    match first {
        None => {}
        Some(Err(error)) => problems.error(&object, "data.config", error.to_string()),
        Some(Ok(node)) => Legacy { object: &object }.top(&node, &mut drafts, problems),
    }
    problems.notice(&object, DEPRECATED);
    drafts
}

/// The notice that every ConfigMap gets.
pub(super) const DEPRECATED: &str = "a ConfigMap is how MetalLB was configured up to 0.12; it works, but is deprecated: \
    `kubectl patina migrate` writes the IPAddressPools and advertisements that say the same";

struct Legacy<'a> {
    object: &'a ObjectRef,
}

impl Legacy<'_> {
    fn top(&self, node: &Node, drafts: &mut Drafts, problems: &mut Problems) {
        let Some(mut top) = MapReader::new(self.object, "", node, problems) else { return };
        for (i, (path, node)) in top.list("peers", problems).into_iter().enumerate() {
            let spec = self.peer(&path, node, problems);
            drafts.peers.extend(spec.map(|spec| self.draft(format!("peer{}", i + 1), path, spec)));
        }
        if let Some(aliases) = top.map("bgp-communities", problems) {
            self.aliases(&aliases, drafts, problems);
        }
        let mut names = BTreeSet::new();
        for (path, node) in top.list("bfd-profiles", problems) {
            if let Some((name, spec)) = self.bfd_profile(&path, node, problems) {
                if name.is_empty() || names.insert(name.clone()) {
                    drafts.bfd_profiles.push(self.draft(name, path, spec));
                } else {
                    self.doubled("BFD profile", &path, &name, problems);
                }
            }
        }
        let mut names = BTreeSet::new();
        for (path, node) in top.list("address-pools", problems) {
            self.pool(&path, node, &mut names, drafts, problems);
        }
        top.finish(problems);
    }

    fn draft<T>(&self, name: String, path: String, spec: T) -> Draft<T> {
        let place = Place::legacy(self.object.clone(), path);
        Draft { place, name, labels: BTreeMap::new(), failback: None, spec }
    }

    fn doubled(&self, what: &str, path: &str, name: &str, problems: &mut Problems) {
        let message = format!("there is another {what} of the name {name:?} above; names must be unique");
        problems.error(self.object, format!("{path}.name"), message);
    }

    /// After the map is read: a name under another key is that key's error.
    fn named(&self, name: Option<String>, path: &str, problems: &mut Problems) -> Option<String> {
        let name = name.filter(|name| !name.is_empty());
        if name.is_none() {
            problems.error(self.object, format!("{path}.name"), "there is no name; it is needed");
        }
        name
    }

    /// `names` are those of the pools above.
    fn pool(
        &self,
        path: &str,
        node: &Node,
        names: &mut BTreeSet<String>,
        drafts: &mut Drafts,
        problems: &mut Problems,
    ) {
        let Some(mut map) = MapReader::new(self.object, path, node, problems) else { return };
        let name = map.string("name", problems);
        let protocol = map.string("protocol", problems).unwrap_or_default();
        let spec = IPAddressPoolSpec {
            addresses: map.strings("addresses", problems),
            auto_assign: map.boolean("auto-assign", problems).unwrap_or(true),
            avoid_buggy_ips: map.boolean("avoid-buggy-ips", problems).unwrap_or(false),
            service_allocation: None,
        };
        let has_advertisements = map.has("bgp-advertisements");
        let advertisements: Vec<_> = map
            .list("bgp-advertisements", problems)
            .into_iter()
            .map(|(path, node)| (self.advertisement(&path, node, problems), path))
            .collect();
        map.finish(problems);
        let name = self.named(name, path, problems);

        match protocol.as_str() {
            "layer2" if has_advertisements => {
                let message =
                    "bgp-advertisements are for protocol bgp, but the protocol of this pool is layer2";
                problems.error(self.object, format!("{path}.bgp-advertisements"), message);
            }
            "layer2" | "bgp" => {}
            "" => {
                let message = "the protocol is missing; allowed are layer2 and bgp";
                problems.error(self.object, format!("{path}.protocol"), message);
            }
            other => {
                let message = format!("{other:?} is unknown; allowed are layer2 and bgp");
                problems.error(self.object, format!("{path}.protocol"), message);
            }
        }
        // What has no name is looked at all the same.
        let name = name.unwrap_or_default();
        if !name.is_empty() && !names.insert(name.clone()) {
            self.doubled("address pool", path, &name, problems);
            return;
        }
        let pools = vec![name.clone()];
        if protocol == "layer2" {
            let spec = L2AdvertisementSpec { ip_address_pools: pools, ..Default::default() };
            drafts.l2_advertisements.push(self.draft(name.clone(), path.to_owned(), spec));
        } else if protocol == "bgp" {
            // Without any, one with the defaults.
            let given = !advertisements.is_empty();
            let default = (!given).then(|| (Some(BGPAdvertisementSpec::default()), path.to_owned()));
            for (spec, path) in advertisements.into_iter().chain(default) {
                let Some(spec) = spec else { continue };
                let spec = BGPAdvertisementSpec { ip_address_pools: pools.clone(), ..spec };
                drafts.bgp_advertisements.push(self.draft(name.clone(), path, spec));
            }
        }
        drafts.pools.push(self.draft(name, path.to_owned(), spec));
    }

    fn advertisement(
        &self,
        path: &str,
        node: &Node,
        problems: &mut Problems,
    ) -> Option<BGPAdvertisementSpec> {
        let mut map = MapReader::new(self.object, path, node, problems)?;
        let default = BGPAdvertisementSpec::default();
        let spec = BGPAdvertisementSpec {
            aggregation_length: map.int("aggregation-length", 1, 32, problems).or(default.aggregation_length),
            aggregation_length_v6: map
                .int("aggregation-length-v6", 1, 128, problems)
                .or(default.aggregation_length_v6),
            local_pref: map.int("localpref", 0, U32, problems),
            communities: map.strings("communities", problems),
            ..default
        };
        map.finish(problems);
        Some(spec)
    }

    fn aliases(&self, map: &MapReader<'_>, drafts: &mut Drafts, problems: &mut Problems) {
        let mut names = BTreeSet::new();
        for (name, node) in map.entries() {
            let field = map.at(name);
            let Node::Scalar(scalar) = node else {
                let message = format!("found {}; allowed is a community (64500:100)", node.describe());
                problems.error(self.object, field, message);
                continue;
            };
            // A doubled key is reported by the map.
            if names.insert(name) {
                let (name, value) = (name.clone(), scalar.text.clone());
                drafts.aliases.push(AliasDraft {
                    object: self.object.clone(),
                    field,
                    name,
                    value,
                    legacy: true,
                });
            }
        }
    }

    fn bfd_profile(
        &self,
        path: &str,
        node: &Node,
        problems: &mut Problems,
    ) -> Option<(String, BFDProfileSpec)> {
        let mut map = MapReader::new(self.object, path, node, problems)?;
        let name = map.string("name", problems);
        let spec = BFDProfileSpec {
            receive_interval: map.int("receive-interval", 0, U32, problems),
            transmit_interval: map.int("transmit-interval", 0, U32, problems),
            detect_multiplier: map.int("detect-multiplier", 0, U32, problems),
            echo_interval: map.int("echo-interval", 0, U32, problems),
            echo_mode: map.boolean("echo-mode", problems),
            passive_mode: map.boolean("passive-mode", problems),
            minimum_ttl: map.int("minimum-ttl", 0, U32, problems),
        };
        map.finish(problems);
        Some((self.named(name, path, problems).unwrap_or_default(), spec))
    }

    fn peer(&self, path: &str, node: &Node, problems: &mut Problems) -> Option<BGPPeerSpec> {
        let mut map = MapReader::new(self.object, path, node, problems)?;
        let selectors = |map: &mut MapReader<'_>, problems: &mut Problems| -> Vec<LabelSelector> {
            let list = map.list("node-selectors", problems);
            list.into_iter().map(|(path, node)| self.selector(&path, node, problems)).collect()
        };
        let spec = BGPPeerSpec {
            my_asn: map.int("my-asn", 0, U32, problems).unwrap_or(0),
            peer_asn: map.int("peer-asn", 0, U32, problems),
            peer_address: map.string("peer-address", problems),
            source_address: map.string("source-address", problems),
            peer_port: map.int("peer-port", 0, U16, problems),
            hold_time: map.string("hold-time", problems),
            keepalive_time: map.string("keepalive-time", problems),
            router_id: map.string("router-id", problems),
            node_selectors: selectors(&mut map, problems),
            password: map.string("password", problems),
            bfd_profile: map.string("bfd-profile", problems),
            ebgp_multi_hop: map.boolean("ebgp-multihop", problems).unwrap_or(false),
            ..BGPPeerSpec::default()
        };
        map.finish(problems);
        Some(spec)
    }

    fn selector(&self, path: &str, node: &Node, problems: &mut Problems) -> LabelSelector {
        let mut selector = LabelSelector::default();
        let Some(mut map) = MapReader::new(self.object, path, node, problems) else { return selector };
        if let Some(labels) = map.map("match-labels", problems) {
            let mut out = BTreeMap::new();
            for (key, node) in labels.entries() {
                if let Node::Scalar(scalar) = node {
                    out.insert(key.clone(), if node.is_null() { String::new() } else { scalar.text.clone() });
                } else {
                    let message = format!("found {}; allowed is the value of a label", node.describe());
                    problems.error(self.object, labels.at(key), message);
                }
            }
            selector.match_labels = Some(out);
        }
        let mut expressions = Vec::new();
        for (path, node) in map.list("match-expressions", problems) {
            let Some(mut expression) = MapReader::new(self.object, path, node, problems) else { continue };
            expressions.push(LabelSelectorRequirement {
                key: expression.string("key", problems).unwrap_or_default(),
                operator: expression.string("operator", problems).unwrap_or_default(),
                values: Some(expression.strings("values", problems)),
            });
            expression.finish(problems);
        }
        selector.match_expressions = (!expressions.is_empty()).then_some(expressions);
        map.finish(problems);
        selector
    }
}
