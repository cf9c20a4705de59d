//! The ConfigMap of MetalLB 0.9 to 0.12 into the resources that say the same, under the names that MetalLB's own tool gives
//! them: `peer1`, `bgpadvertisement1`, `l2advertisement1`, one Community `communities`.
//!
//! The drafts of the ConfigMap are specs of resources already; what is left is what the resources say otherwise: names, a
//! few numbers, and defaults that are left out. Timers that nobody wrote stay absent (MetalLB's tool writes the hold time of
//! that day).

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde::Serialize;
use serde_json::{Value, json};

use super::draft::{AliasDraft, Draft, Problems, present};
use super::manifest::{self, ManifestError, Options, Reading};
use super::{Community, Config, ConfigErrors, LegacyConfigMap, Resources, legacy, peers};
use crate::config::duration::show;
use crate::types::{self, BFDProfileSpec, BGPAdvertisementSpec, BGPPeerSpec, IPAddressPoolSpec};
use crate::yaml::{self, Limits, Node};

/// What the schema of BGPPeer allows.
const LARGEST_PORT: i64 = 16_384;
/// What the schema of BGPAdvertisement allows.
const LARGEST_PREFERENCE: i64 = i32::MAX as i64;

/// Resources, and what their author should know.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Migrated {
    /// No ConfigMap among them.
    pub resources: Resources,
    /// One sentence each.
    pub notes: Vec<String>,
}

/// The ConfigMap in a text: in manifests, or the bare value of its data key. `Ok(None)`: there is none.
///
/// # Errors
/// Documents that cannot be read.
pub fn find(text: &str, options: &Options) -> Result<Option<LegacyConfigMap>, Vec<ManifestError>> {
    if is_bare(text) {
        let (namespace, name) = (options.namespace.clone(), options.legacy_name.clone());
        return Ok(Some(LegacyConfigMap { namespace, name, data: Some(text.to_owned()) }));
    }
    let Reading { manifest, errors, .. } = manifest::read_all(text, options, Limits::OF_A_FILE);
    if errors.is_empty() { Ok(manifest.resources.legacy) } else { Err(errors) }
}

/// Whether the text is a configuration by itself: a map that does not say what kind of object it is.
fn is_bare(text: &str) -> bool {
    let first = yaml::documents_within(text, Limits::OF_A_FILE).into_iter().next();
    let Some(Ok(Node::Map(entries))) = first else { return false };
    !entries.iter().any(|(key, _)| matches!(key.as_str(), "apiVersion" | "kind"))
}

/// The resources that mean what the ConfigMap means.
///
/// # Errors
/// Every error of the ConfigMap, every value in it for which the resources have no room, and every rule that the resources
/// would break.
pub fn migrate(source: &LegacyConfigMap) -> Result<Migrated, ConfigErrors> {
    let (namespace, legacy) = (source.namespace.clone(), Some(source.clone()));
    let loaded = super::build(&Resources { namespace, legacy, ..Resources::default() })?;
    let notices = loaded.notices.iter().filter(|notice| notice.message != legacy::DEPRECATED);
    let notes = notices.map(ToString::to_string).collect();

    // Its errors would have been those of `build`.
    let drafts = legacy::read(source, &mut Problems::default());
    let mut migration = Migration { namespace: &source.namespace, notes, problems: Problems::default() };
    let pools = migration.names("IPAddressPool", &drafts.pools, "pool");
    let profiles = migration.names("BFDProfile", &drafts.bfd_profiles, "bfdprofile");
    let aliases = values(&drafts.aliases);

    let mut out =
        Resources { namespace: source.namespace.clone(), ..migration.with_names(&drafts, &pools, &profiles) };
    out.communities.extend(migration.community(&drafts.aliases));
    for (i, draft) in drafts.bgp_advertisements.iter().enumerate() {
        let spec = migration.bgp_advertisement(draft, &pools, &aliases);
        let mut ad = types::BGPAdvertisement::new(&format!("bgpadvertisement{}", i + 1), spec);
        migration.place(&mut ad.metadata);
        out.bgp_advertisements.push(ad);
    }
    for draft in &drafts.peers {
        let mut peer = types::BGPPeer::new(&draft.name, migration.peer(draft, &profiles));
        migration.place(&mut peer.metadata);
        out.peers.push(peer);
    }
    let Migration { notes, problems, .. } = migration;
    problems.finish(Config::default())?;
    // Some rules are younger than the ConfigMap, which stays free of them: better said now than by the API server.
    super::build(&out)?;
    Ok(Migrated { resources: out, notes })
}

impl Migrated {
    /// The resources as JSON, without what is default, in an order in which they can take over from the ConfigMap one by one:
    /// what others refer to before them, and a pool after its advertisements, so that it is always announced.
    ///
    /// # Errors
    /// A type that is not JSON; the tests would have seen it.
    pub fn objects(&self) -> Result<Vec<Value>, serde_json::Error> {
        let r = &self.resources;
        let mut out = Vec::new();
        add(&mut out, &r.communities)?;
        add(&mut out, &r.bfd_profiles)?;
        add(&mut out, &r.l2_advertisements)?;
        add(&mut out, &r.bgp_advertisements)?;
        add(&mut out, &r.pools)?;
        add(&mut out, &r.peers)?;
        Ok(out)
    }

    /// The resources as manifests. Texts that YAML 1.1 would take for something else (`no`, `1e3`, `12:30`) are quoted,
    /// because kubectl reads that.
    ///
    /// # Errors
    /// The writer's; it has none for JSON values.
    pub fn to_yaml(&self) -> Result<String, serde_saphyr::ser::Error> {
        let objects = self.objects().map_err(<serde_saphyr::ser::Error as serde::ser::Error>::custom)?;
        let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
        let mut out = String::new();
        for object in &objects {
            out.push_str("---\n");
            out.push_str(&serde_saphyr::to_string_with_options(object, options.clone())?);
        }
        Ok(out)
    }
}

fn add<T: Serialize>(out: &mut Vec<Value>, objects: &[T]) -> Result<(), serde_json::Error> {
    for object in objects {
        let mut value = serde_json::to_value(object)?;
        if let Some(spec) = value.get_mut("spec").and_then(Value::as_object_mut) {
            // The API server writes these by itself.
            let defaults = [
                ("autoAssign", json!(true)),
                ("avoidBuggyIPs", json!(false)),
                ("disableMP", json!(false)),
                ("dualStackAddressFamily", json!(false)),
            ];
            spec.retain(|key, value| !defaults.iter().any(|(name, default)| key == name && value == default));
        }
        value.sort_all_objects();
        out.push(value);
    }
    Ok(())
}

/// Old name -> new name.
type Names = BTreeMap<String, String>;

struct Migration<'a> {
    namespace: &'a str,
    notes: Vec<String>,
    problems: Problems,
}

impl Migration<'_> {
    fn place(&self, metadata: &mut ObjectMeta) {
        metadata.namespace = Some(self.namespace.to_owned());
    }

    fn note<T>(&mut self, draft: &Draft<T>, message: &str) {
        self.notes.push(format!("{}: {}: {message}", draft.place.object, draft.place.path()));
    }

    /// Names that objects may have, each another one. What may stay stays, even when something else would become it.
    fn names<T>(&mut self, kind: &str, drafts: &[Draft<T>], fallback: &str) -> Names {
        let mut taken: BTreeSet<String> =
            drafts.iter().map(|draft| draft.name.clone()).filter(|name| manifest::is_name(name)).collect();
        let mut names: Names = taken.iter().map(|name| (name.clone(), name.clone())).collect();
        for draft in drafts {
            if names.contains_key(&draft.name) {
                continue;
            }
            let plain = tame(&draft.name, fallback);
            let mut name = plain.clone();
            for n in 2.. {
                if !taken.contains(&name) {
                    break;
                }
                name = format!("{plain}-{n}");
            }
            let because = if name == plain { String::new() } else { format!(" ({plain:?} is another)") };
            let who = if kind == "IPAddressPool" {
                "; give the pool of the ConfigMap that name first, because its addresses cannot be in two pools while both \
                 are there; Services that ask for it by an annotation must say the new name"
            } else {
                ""
            };
            let message =
                format!("{:?} is no name of a resource, so the {kind} is {name:?}{because}{who}", draft.name);
            self.note(draft, &message);
            taken.insert(name.clone());
            names.insert(draft.name.clone(), name);
        }
        names
    }

    /// What changes nothing but its names: pools, their layer 2 advertisements, BFD profiles.
    fn with_names(&self, drafts: &super::draft::Drafts, pools: &Names, profiles: &Names) -> Resources {
        let mut out = Resources::default();
        for draft in &drafts.pools {
            let addresses = draft.spec.addresses.iter().map(|text| text.trim().to_owned()).collect();
            let spec = IPAddressPoolSpec { addresses, ..draft.spec.clone() };
            let mut pool = types::IPAddressPool::new(&renamed(pools, &draft.name), spec);
            self.place(&mut pool.metadata);
            out.pools.push(pool);
        }
        for (i, draft) in drafts.l2_advertisements.iter().enumerate() {
            let ip_address_pools = all_renamed(pools, &draft.spec.ip_address_pools);
            let spec = types::L2AdvertisementSpec { ip_address_pools, ..draft.spec.clone() };
            let mut ad = types::L2Advertisement::new(&format!("l2advertisement{}", i + 1), spec);
            self.place(&mut ad.metadata);
            out.l2_advertisements.push(ad);
        }
        for draft in &drafts.bfd_profiles {
            let spec = bfd_profile(&draft.spec);
            let mut profile = types::BFDProfile::new(&renamed(profiles, &draft.name), spec);
            self.place(&mut profile.metadata);
            out.bfd_profiles.push(profile);
        }
        out
    }

    fn community(&self, aliases: &[AliasDraft]) -> Option<types::Community> {
        let communities: Vec<_> = aliases
            .iter()
            .map(|alias| types::CommunityAlias { name: alias.name.clone(), value: alias.value.clone() })
            .collect();
        let mut object = types::Community::new("communities", types::CommunitySpec { communities });
        self.place(&mut object.metadata);
        (!object.spec.communities.is_empty()).then_some(object)
    }

    fn bgp_advertisement(
        &mut self,
        draft: &Draft<BGPAdvertisementSpec>,
        pools: &Names,
        aliases: &BTreeMap<&str, Community>,
    ) -> BGPAdvertisementSpec {
        let spec = &draft.spec;
        let local_pref = spec.local_pref.filter(|preference| *preference != 0);
        if let Some(preference) = local_pref.filter(|preference| *preference > LARGEST_PREFERENCE) {
            let message = format!(
                "{preference} is more than the localPref of a BGPAdvertisement may be ({LARGEST_PREFERENCE})"
            );
            self.problems.error(&draft.place.object, draft.place.field("localPref"), message);
        }
        // The ConfigMap took a community twice for once, the resource does not.
        let mut seen = BTreeSet::new();
        let communities =
            spec.communities.iter().filter(|text| seen.insert(community(text, aliases))).cloned().collect();
        BGPAdvertisementSpec {
            aggregation_length: spec.aggregation_length.filter(|length| *length != 32),
            aggregation_length_v6: spec.aggregation_length_v6.filter(|length| *length != 128),
            local_pref,
            communities,
            ip_address_pools: all_renamed(pools, &spec.ip_address_pools),
            ..spec.clone()
        }
    }

    fn peer(&mut self, draft: &Draft<BGPPeerSpec>, profiles: &Names) -> BGPPeerSpec {
        let spec = &draft.spec;
        let written = |text: &Option<String>| present(text).map(str::to_owned);
        let peer_port = spec.peer_port.filter(|port| ![0, 179].contains(port));
        if let Some(port) = peer_port.filter(|port| *port > LARGEST_PORT) {
            let message = format!("{port} is more than the peerPort of a BGPPeer may be ({LARGEST_PORT})");
            self.problems.error(&draft.place.object, draft.place.field("peerPort"), message);
        }
        let keepalive_time = written(&spec.keepalive_time);
        let mut hold_time = written(&spec.hold_time);
        if spec.hold_time.is_none() && keepalive_time.is_some() {
            // Of a BGPPeer that says its keepalive time only, the hold time would be three times that.
            hold_time = Some(show(peers::LEGACY_HOLD));
            self.note(
                draft,
                "the hold time is written out, because a BGPPeer would derive it from the keepalive time",
            );
        }
        let password = written(&spec.password);
        if password.is_some() {
            let message = "the password is readable in the BGPPeer, as it was in the ConfigMap; passwordSecret names a \
                Secret instead";
            self.note(draft, message);
        }
        BGPPeerSpec {
            peer_port,
            source_address: written(&spec.source_address),
            hold_time,
            keepalive_time,
            router_id: written(&spec.router_id),
            node_selectors: spec.node_selectors.iter().map(selector).collect(),
            password,
            bfd_profile: present(&spec.bfd_profile).map(|name| renamed(profiles, name)),
            ..spec.clone()
        }
    }
}

fn renamed(names: &Names, old: &str) -> String {
    names.get(old).cloned().unwrap_or_else(|| old.to_owned())
}

fn all_renamed(names: &Names, old: &[String]) -> Vec<String> {
    old.iter().map(|name| renamed(names, name)).collect()
}

/// The nearest name that a resource may have (RFC 1123 subdomain, with room for a number): lower case, dashes for the rest.
fn tame(name: &str, fallback: &str) -> String {
    let dashed: String = name
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.' { c } else { '-' })
        .take(240)
        .collect();
    let labels: Vec<&str> =
        dashed.split('.').map(|label| label.trim_matches('-')).filter(|label| !label.is_empty()).collect();
    if labels.is_empty() { fallback.to_owned() } else { labels.join(".") }
}

/// The values of the aliases; all are good here.
fn values(aliases: &[AliasDraft]) -> BTreeMap<&str, Community> {
    aliases.iter().filter_map(|alias| Some((alias.name.as_str(), alias.value.parse().ok()?))).collect()
}

fn community(text: &str, aliases: &BTreeMap<&str, Community>) -> Option<Community> {
    aliases.get(text).copied().or_else(|| text.parse().ok())
}

fn bfd_profile(spec: &BFDProfileSpec) -> BFDProfileSpec {
    // 0 was how the ConfigMap said "default".
    let number = |value: Option<i64>| value.filter(|value| *value != 0);
    let flag = |value: Option<bool>| value.filter(|value| *value);
    BFDProfileSpec {
        receive_interval: number(spec.receive_interval),
        transmit_interval: number(spec.transmit_interval),
        detect_multiplier: number(spec.detect_multiplier),
        echo_interval: number(spec.echo_interval),
        echo_mode: flag(spec.echo_mode),
        passive_mode: flag(spec.passive_mode),
        minimum_ttl: number(spec.minimum_ttl),
    }
}

/// Without empty lists and maps.
fn selector(selector: &LabelSelector) -> LabelSelector {
    let mut out = selector.clone();
    out.match_labels = out.match_labels.filter(|labels| !labels.is_empty());
    for expression in out.match_expressions.iter_mut().flatten() {
        expression.values = expression.values.take().filter(|values| !values.is_empty());
    }
    out
}
