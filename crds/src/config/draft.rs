//! What is common to resources and ConfigMap before anything is checked: specs with a place to point at.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use super::{Config, ConfigError, ConfigErrors, Loaded, ObjectRef, Resources};
use crate::keys::FAILBACK;
use crate::selector::{Labels, Selector};
use crate::types;

/// Something that is allowed, but that the author should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The object that it is about.
    pub object: ObjectRef,
    /// One sentence.
    pub message: String,
}

impl std::fmt::Display for Notice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.object, self.message)
    }
}

/// Collects errors and notices while the checks go on.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    errors: Vec<ConfigError>,
    notices: Vec<Notice>,
    /// Fields that could not even be read; what follows from that is not said.
    unreadable: BTreeSet<(ObjectRef, String)>,
    /// Errors beyond [`MAX_ERRORS`].
    more: usize,
}

/// Nobody reads more, and a text of a megabyte can have a hundred thousand.
const MAX_ERRORS: usize = 1000;

impl Problems {
    /// A field whose value is of the wrong kind. No further error about it is taken.
    pub(crate) fn unreadable(
        &mut self,
        object: &ObjectRef,
        field: impl Into<String>,
        message: impl Into<String>,
    ) {
        let field = field.into();
        self.push(object, field.clone(), message.into(), None);
        self.silence(object, field);
    }

    /// A field about which enough has been said: no further error about it is taken.
    pub(crate) fn silence(&mut self, object: &ObjectRef, field: impl Into<String>) {
        self.unreadable.insert((object.clone(), field.into()));
    }

    /// An error that its author can mend.
    pub(crate) fn error(&mut self, object: &ObjectRef, field: impl Into<String>, message: impl Into<String>) {
        self.push(object, field.into(), message.into(), None);
    }

    /// An error that may go away by itself: an object (any of its kind, if the name is empty) is not there yet.
    pub(crate) fn transient(
        &mut self,
        object: &ObjectRef,
        field: impl Into<String>,
        missing: (&str, &str),
        message: impl Into<String>,
    ) {
        let (kind, name) = (missing.0.to_owned(), missing.1.to_owned());
        let missing = ObjectRef { kind, namespace: object.namespace.clone(), name };
        self.push(object, field.into(), message.into(), Some(missing));
    }

    /// Something to know.
    pub(crate) fn notice(&mut self, object: &ObjectRef, message: impl Into<String>) {
        self.notices.push(Notice { object: object.clone(), message: message.into() });
    }

    /// The configuration with the notices, or all errors.
    pub(crate) fn finish(mut self, config: Config) -> Result<Loaded, ConfigErrors> {
        if let (Some(last), more @ 1..) = (self.errors.last_mut(), self.more) {
            last.message.push_str(&format!(" (and {more} more errors)"));
        }
        if self.errors.is_empty() {
            Ok(Loaded { config, notices: self.notices })
        } else {
            Err(ConfigErrors(self.errors))
        }
    }

    fn push(&mut self, object: &ObjectRef, field: String, message: String, missing: Option<ObjectRef>) {
        if self.unreadable.contains(&(object.clone(), field.clone())) {
            return;
        }
        if self.errors.len() >= MAX_ERRORS {
            self.more += 1;
            return;
        }
        let (object, transient) = (object.clone(), missing.is_some());
        self.errors.push(ConfigError { object, field, message, transient, missing });
    }
}

/// Where a spec was written, and how its fields are called there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The object to edit.
    pub(crate) object: ObjectRef,
    /// Path of the spec in the object: `spec`, or `address-pools[0]`.
    base: String,
    /// Fields are called as in the ConfigMap.
    pub(crate) legacy: bool,
}

impl Place {
    /// The `spec` of a resource.
    pub(crate) fn resource(object: ObjectRef) -> Self {
        Self { object, base: "spec".to_owned(), legacy: false }
    }

    /// An entry of the ConfigMap.
    pub(crate) fn legacy(object: ObjectRef, base: impl Into<String>) -> Self {
        Self { object, base: base.into(), legacy: true }
    }

    /// The place of an object inside the spec.
    pub(crate) fn nested(&self, name: &str) -> Self {
        Self { object: self.object.clone(), base: self.field(name), legacy: self.legacy }
    }

    /// Path of the spec itself.
    pub(crate) fn path(&self) -> &str {
        &self.base
    }

    /// Path of a field, given by its name in the resource.
    pub(crate) fn field(&self, name: &str) -> String {
        if self.legacy {
            format!("{}.{}", self.base, legacy_name(name))
        } else {
            format!("{}.{name}", self.base)
        }
    }

    /// Path of an entry of a list.
    pub(crate) fn entry(&self, name: &str, index: usize) -> String {
        format!("{}[{index}]", self.field(name))
    }
}

/// One spec, from wherever.
#[derive(Clone, Debug)]
pub(crate) struct Draft<T> {
    /// Where it was written.
    pub(crate) place: Place,
    /// Its name.
    pub(crate) name: String,
    /// Labels of the resource.
    pub(crate) labels: Labels,
    /// Annotation `patina.io/failback` of the resource; means something on L2Advertisements.
    pub(crate) failback: Option<String>,
    /// What was written.
    pub(crate) spec: T,
}

/// A community alias, from wherever.
#[derive(Clone, Debug)]
pub(crate) struct AliasDraft {
    pub(crate) object: ObjectRef,
    /// Path of the entry.
    pub(crate) field: String,
    pub(crate) name: String,
    pub(crate) value: String,
    pub(crate) legacy: bool,
}

/// All specs of a configuration, each list in the order of the names.
#[derive(Clone, Debug, Default)]
pub(crate) struct Drafts {
    pub(crate) pools: Vec<Draft<types::IPAddressPoolSpec>>,
    pub(crate) l2_advertisements: Vec<Draft<types::L2AdvertisementSpec>>,
    pub(crate) bgp_advertisements: Vec<Draft<types::BGPAdvertisementSpec>>,
    pub(crate) peers: Vec<Draft<types::BGPPeerSpec>>,
    pub(crate) bfd_profiles: Vec<Draft<types::BFDProfileSpec>>,
    pub(crate) aliases: Vec<AliasDraft>,
    pub(crate) reservations: Vec<Draft<types::AddressReservationSpec>>,
}

impl Drafts {
    /// The specs of the resources; objects of another namespace and doubled names become errors.
    pub(crate) fn of_resources(resources: &Resources, problems: &mut Problems) -> Self {
        let mut reader = Reader { namespace: &resources.namespace, problems };
        let mut aliases = Vec::new();
        for draft in reader.read("Community", &resources.communities, |o| (&o.metadata, &o.spec)) {
            for (i, alias) in draft.spec.communities.iter().enumerate() {
                aliases.push(AliasDraft {
                    object: draft.place.object.clone(),
                    field: draft.place.entry("communities", i),
                    name: alias.name.clone(),
                    value: alias.value.clone(),
                    legacy: false,
                });
            }
        }
        Self {
            pools: reader.read("IPAddressPool", &resources.pools, |o| (&o.metadata, &o.spec)),
            l2_advertisements: reader
                .read("L2Advertisement", &resources.l2_advertisements, |o| (&o.metadata, &o.spec)),
            bgp_advertisements: reader
                .read("BGPAdvertisement", &resources.bgp_advertisements, |o| (&o.metadata, &o.spec)),
            peers: reader.read("BGPPeer", &resources.peers, |o| (&o.metadata, &o.spec)),
            bfd_profiles: reader.read("BFDProfile", &resources.bfd_profiles, |o| (&o.metadata, &o.spec)),
            aliases,
            reservations: reader
                .read("AddressReservation", &resources.reservations, |o| (&o.metadata, &o.spec)),
        }
    }

    /// Adds what the ConfigMap says, except where a resource of the same name says it already.
    pub(crate) fn add_legacy(&mut self, legacy: Self, problems: &mut Problems) {
        let shadowed_pools: BTreeSet<String> = self.pools.iter().map(|pool| pool.name.clone()).collect();
        merge(&mut self.pools, legacy.pools, "IPAddressPool", problems);
        // The pool of the ConfigMap takes its protocol with it: the resource wins with all that goes with it.
        let kept = |pools: &[String]| pools.iter().all(|pool| !shadowed_pools.contains(pool));
        self.l2_advertisements
            .extend(legacy.l2_advertisements.into_iter().filter(|ad| kept(&ad.spec.ip_address_pools)));
        self.bgp_advertisements
            .extend(legacy.bgp_advertisements.into_iter().filter(|ad| kept(&ad.spec.ip_address_pools)));
        merge(&mut self.peers, legacy.peers, "BGPPeer", problems);
        merge(&mut self.bfd_profiles, legacy.bfd_profiles, "BFDProfile", problems);
        let names: BTreeSet<String> = self.aliases.iter().map(|alias| alias.name.clone()).collect();
        for alias in legacy.aliases {
            if names.contains(&alias.name) {
                let message =
                    format!("{}: a Community resource defines {:?} too and wins", alias.field, alias.name);
                problems.notice(&alias.object, message);
            } else {
                self.aliases.push(alias);
            }
        }
    }
}

fn merge<T>(ours: &mut Vec<Draft<T>>, theirs: Vec<Draft<T>>, kind: &str, problems: &mut Problems) {
    let names: BTreeSet<String> = ours.iter().map(|draft| draft.name.clone()).collect();
    for draft in theirs {
        if names.contains(&draft.name) {
            let message =
                format!("{}: the {kind} resource of the same name {:?} wins", draft.place.path(), draft.name);
            problems.notice(&draft.place.object, message);
        } else {
            ours.push(draft);
        }
    }
}

struct Reader<'a> {
    namespace: &'a str,
    problems: &'a mut Problems,
}

impl Reader<'_> {
    fn read<K, T: Clone>(
        &mut self,
        kind: &str,
        objects: &[K],
        parts: impl Fn(&K) -> (&ObjectMeta, &T),
    ) -> Vec<Draft<T>> {
        let mut seen: BTreeMap<String, ()> = BTreeMap::new();
        let mut drafts = Vec::new();
        for object in objects {
            let (meta, spec) = parts(object);
            let name = meta.name.clone().unwrap_or_default();
            let namespace = meta.namespace.clone().unwrap_or_else(|| self.namespace.to_owned());
            let source = ObjectRef { kind: kind.to_owned(), namespace, name: name.clone() };
            if !self.namespace.is_empty() && source.namespace != self.namespace {
                let message = format!(
                    "{:?} is not the namespace that is read; only resources in {:?} count",
                    source.namespace, self.namespace
                );
                self.problems.error(&source, "metadata.namespace", message);
                continue;
            }
            if name.is_empty() {
                self.problems.error(&source, "metadata.name", "there is no name; every resource needs one");
                continue;
            }
            if seen.insert(name.clone(), ()).is_some() {
                let message = format!("there is another {kind} of the name {name:?}; names must be unique");
                self.problems.error(&source, "metadata.name", message);
                continue;
            }
            let labels = meta.labels.clone().unwrap_or_default();
            let failback = meta.annotations.as_ref().and_then(|all| all.get(FAILBACK)).cloned();
            drafts.push(Draft { place: Place::resource(source), name, labels, failback, spec: spec.clone() });
        }
        drafts.sort_by(|a, b| a.name.cmp(&b.name));
        drafts
    }
}

/// Compiles the selectors of a list; each that is invalid becomes an error.
pub(crate) fn selectors(
    place: &Place,
    field: &str,
    list: &[LabelSelector],
    problems: &mut Problems,
) -> Vec<Selector> {
    compiled(place, field, list, problems).into_iter().map(|(_, selector)| selector).collect()
}

/// [`selectors`], and refuses a selector that is there twice.
pub(crate) fn distinct_selectors(
    place: &Place,
    field: &str,
    list: &[LabelSelector],
    problems: &mut Problems,
) -> Vec<Selector> {
    let compiled = compiled(place, field, list, problems);
    let mut seen = BTreeSet::new();
    for (i, selector) in &compiled {
        if !seen.insert(selector) {
            let message = format!("the selector {selector} stands twice in the list; name it once");
            problems.error(&place.object, place.entry(field, *i), message);
        }
    }
    compiled.into_iter().map(|(_, selector)| selector).collect()
}

/// The valid ones, each with its place in the list.
fn compiled(
    place: &Place,
    field: &str,
    list: &[LabelSelector],
    problems: &mut Problems,
) -> Vec<(usize, Selector)> {
    let mut out = Vec::new();
    for (i, selector) in list.iter().enumerate() {
        match Selector::compile(selector) {
            Ok(selector) => out.push((i, selector)),
            Err(error) => problems.error(&place.object, place.entry(field, i), error.to_string()),
        }
    }
    out
}

/// The names of a list as a set; a name that is there twice becomes an error.
pub(crate) fn distinct(
    place: &Place,
    field: &str,
    list: &[String],
    problems: &mut Problems,
) -> BTreeSet<String> {
    let mut out = BTreeSet::new();
    for (i, name) in list.iter().enumerate() {
        if !out.insert(name.clone()) {
            let message = format!("{name:?} stands twice in the list; name it once");
            problems.error(&place.object, place.entry(field, i), message);
        }
    }
    out
}

/// A string that Go would take for absent when it is empty.
pub(crate) fn present(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|text| !text.is_empty())
}

/// `avoidBuggyIPs` is `avoid-buggy-ips` in the ConfigMap.
fn legacy_name(name: &str) -> String {
    match name {
        "myASN" => "my-asn".to_owned(),
        "peerASN" => "peer-asn".to_owned(),
        "routerID" => "router-id".to_owned(),
        "localPref" => "localpref".to_owned(),
        "ebgpMultiHop" => "ebgp-multihop".to_owned(),
        "avoidBuggyIPs" => "avoid-buggy-ips".to_owned(),
        _ => {
            let mut out = String::new();
            for c in name.chars() {
                if c.is_ascii_uppercase() {
                    out.push('-');
                }
                out.push(c.to_ascii_lowercase());
            }
            out
        }
    }
}
