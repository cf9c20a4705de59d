//! Whether the API server may take an object. Pure: a review and the configuration as it is, in; an answer out.
//!
//! The configuration is built twice, without the change and with it, by the function that everybody uses
//! ([`patina_crds::config::build`]). An object is refused exactly when it adds errors; what was wrong before stands in
//! nobody's way.

use std::collections::BTreeMap;
use std::fmt;

use kube::ResourceExt;
use kube::core::admission::{AdmissionRequest, AdmissionResponse, Operation};
use kube::core::response::{Status, StatusCause, StatusDetails, reason};
use kube::core::{DynamicObject, Resource};
use patina_crds::config::manifest::{self, Options};
use patina_crds::config::{self, ConfigError, Notice, Resources};
use patina_crds::convert::convert;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Kinds and the path of each: MetalLB's, and ours.
pub(crate) const KINDS: [(&str, &str); 7] = [
    ("AddressReservation", "/validate-patina-io-v1beta1-addressreservation"),
    ("BFDProfile", "/validate-metallb-io-v1beta1-bfdprofile"),
    ("BGPAdvertisement", "/validate-metallb-io-v1beta1-bgpadvertisement"),
    ("BGPPeer", "/validate-metallb-io-v1beta2-bgppeer"),
    ("Community", "/validate-metallb-io-v1beta1-community"),
    ("IPAddressPool", "/validate-metallb-io-v1beta1-ipaddresspool"),
    ("L2Advertisement", "/validate-metallb-io-v1beta1-l2advertisement"),
];

/// Version in which BGPPeers are kept in [`Resources`].
const PEER_VERSION: &str = "metallb.io/v1beta2";

/// What the answer is, before it is one of HTTP.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// With what its author should know.
    Allowed(Vec<String>),
    Denied(Denial),
}

/// Why not; never without a cause.
#[derive(Debug)]
pub(crate) struct Denial {
    message: String,
    causes: Vec<StatusCause>,
}

/// Judges the request on top of `resources`, what is stored.
pub(crate) fn judge(request: &AdmissionRequest<DynamicObject>, resources: &Resources) -> Verdict {
    let kind = request.kind.kind.as_str();
    let namespace = request.namespace.as_deref().unwrap_or_default();
    if namespace != resources.namespace {
        return match request.operation {
            Operation::Create => Verdict::Denied(Denial::one(
                "metadata.namespace",
                format!(
                    "found {namespace:?}; configuration is read from the namespace {:?} only, create it there",
                    resources.namespace
                ),
            )),
            // It is no part of the configuration, and whoever put it there may tidy up.
            _ => Verdict::Allowed(Vec::new()),
        };
    }
    match (&request.operation, &request.object) {
        (Operation::Delete, _) if kind == "BFDProfile" => profile_unused(&request.name, resources),
        (Operation::Create | Operation::Update, Some(object)) => match with(kind, object, resources) {
            Ok(after) => compare(kind, &object.name_any(), resources, &after),
            Err(denial) => Verdict::Denied(denial),
        },
        _ => Verdict::Allowed(Vec::new()),
    }
}

/// The answer in Kubernetes' words.
pub(crate) fn response(request: &AdmissionRequest<DynamicObject>, verdict: Verdict) -> AdmissionResponse {
    let mut response = AdmissionResponse::from(request);
    match verdict {
        Verdict::Allowed(warnings) => response.warnings = (!warnings.is_empty()).then_some(warnings),
        Verdict::Denied(Denial { message, causes }) => {
            response.allowed = false;
            let details = StatusDetails {
                name: request.name.clone(),
                group: request.kind.group.clone(),
                kind: request.kind.kind.clone(),
                causes,
                uid: String::new(),
                retry_after_seconds: 0,
            };
            response.result = Status::failure(&message, reason::INVALID).with_code(422).with_details(details);
        }
    }
    response
}

/// `BFDProfile`s are not removed from under a peer.
fn profile_unused(name: &str, resources: &Resources) -> Verdict {
    let uses = |peer: &&patina_crds::types::BGPPeer| peer.spec.bfd_profile.as_deref() == Some(name);
    let users: Vec<String> = resources.peers.iter().filter(uses).map(|peer| peer.name_any()).collect();
    if users.is_empty() {
        return Verdict::Allowed(Vec::new());
    }
    let message = format!(
        "the BFDProfile {name:?} is used by the BGPPeer{} {}; remove spec.bfdProfile there first",
        if users.len() == 1 { "" } else { "s" },
        users.join(", ")
    );
    Verdict::Denied(Denial::one("metadata.name", message))
}

/// The configuration with the object in it, in place of one of its name.
fn with(kind: &str, object: &DynamicObject, resources: &Resources) -> Result<Resources, Denial> {
    let mut value = serde_json::to_value(object).map_err(|error| Denial::one("", error.to_string()))?;
    if kind == "BGPPeer" {
        value =
            convert(&value, PEER_VERSION).map_err(|error| Denial::one("apiVersion", error.to_string()))?;
    }
    let mut after = resources.clone();
    let put = match kind {
        "AddressReservation" => put(&mut after.reservations, &value),
        "BFDProfile" => put(&mut after.bfd_profiles, &value),
        "BGPAdvertisement" => put(&mut after.bgp_advertisements, &value),
        "BGPPeer" => put(&mut after.peers, &value),
        "Community" => put(&mut after.communities, &value),
        "IPAddressPool" => put(&mut after.pools, &value),
        "L2Advertisement" => put(&mut after.l2_advertisements, &value),
        _ => return Err(Denial::one("kind", format!("found {kind:?}, which is not checked here"))),
    };
    put.map(|()| after).map_err(|error| undecodable(&value, &error))
}

fn put<K>(list: &mut Vec<K>, value: &Value) -> Result<(), serde_json::Error>
where
    K: Resource + DeserializeOwned,
{
    let object = K::deserialize(value)?;
    list.retain(|other| other.name_any() != object.name_any());
    list.push(object);
    Ok(())
}

/// The cluster's CRD let something pass that ours would not have: told by ours, which knows the fields.
fn undecodable(value: &Value, error: &serde_json::Error) -> Denial {
    let object = ["apiVersion", "kind", "spec"]
        .iter()
        .filter_map(|key| Some(((*key).to_owned(), value.get(*key)?.clone())));
    let mut object: serde_json::Map<String, Value> = object.collect();
    object.insert("metadata".to_owned(), serde_json::json!({"name": "object"}));
    let causes: Vec<StatusCause> =
        match manifest::read(&Value::Object(object).to_string(), &Options::default()) {
            Err(errors) => errors.0.into_iter().map(|error| cause(error.field, error.message)).collect(),
            Ok(_) => vec![cause("spec".to_owned(), error.to_string())],
        };
    Denial::of(causes)
}

fn compare(kind: &str, name: &str, before: &Resources, after: &Resources) -> Verdict {
    let (before, after) = (Found::of(before), Found::of(after));
    let added = before.added_by(&after);
    if added.is_empty() {
        return Verdict::Allowed(before.notices_added_by(&after, kind, name));
    }
    let own = |error: &ConfigError| error.object.kind == kind && error.object.name == name;
    let causes = added.iter().map(|error| {
        let message =
            if own(error) { error.message.clone() } else { format!("{}: {}", error.object, error.message) };
        cause(error.field.clone(), message)
    });
    Verdict::Denied(Denial::of(causes.collect()))
}

/// What there is to say about a configuration.
struct Found {
    errors: Vec<ConfigError>,
    /// `None` when there are errors: then nobody looked for them.
    notices: Option<Vec<Notice>>,
}

impl Found {
    /// Errors that go away by waiting do not count: the order in which objects arrive is free.
    fn of(resources: &Resources) -> Self {
        match config::build(resources) {
            Ok(loaded) => Self { errors: Vec::new(), notices: Some(loaded.notices) },
            Err(errors) => {
                let lasting = errors.0.into_iter().filter(|error| !error.transient);
                Self { errors: lasting.collect(), notices: None }
            }
        }
    }

    /// The errors of `after` that are not in `self`, each as often as it is there more.
    fn added_by<'a>(&'a self, after: &'a Self) -> Vec<&'a ConfigError> {
        let mut known: BTreeMap<_, usize> = BTreeMap::new();
        for error in &self.errors {
            *known.entry(identity(error)).or_default() += 1;
        }
        let is_new = |error: &&'a ConfigError| match known.get_mut(&identity(error)) {
            Some(left) if *left > 0 => {
                *left -= 1;
                false
            }
            _ => true,
        };
        after.errors.iter().filter(is_new).collect()
    }

    fn notices_added_by(&self, after: &Self, kind: &str, name: &str) -> Vec<String> {
        let own = |notice: &&Notice| notice.object.kind == kind && notice.object.name == name;
        let new = |notice: &&Notice| match &self.notices {
            Some(before) => !before.contains(notice),
            None => own(notice),
        };
        after.notices.iter().flatten().filter(new).map(ToString::to_string).collect()
    }
}

/// What makes two errors the same one: not the place in a list, which moves when an entry before it goes.
fn identity(error: &ConfigError) -> (String, String, &str) {
    let mut field = String::new();
    let mut inside = false;
    for c in error.field.chars() {
        match c {
            '[' => inside = true,
            ']' => inside = false,
            c if !inside => field.push(c),
            _ => {}
        }
    }
    (error.object.to_string(), field, &error.message)
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Denial {
    fn one(field: &str, message: impl Into<String>) -> Self {
        Self::of(vec![cause(field.to_owned(), message.into())])
    }

    /// All causes in one message, for clients that show nothing else.
    fn of(causes: Vec<StatusCause>) -> Self {
        let lines: Vec<String> = causes
            .iter()
            .map(|cause| {
                if cause.field.is_empty() {
                    cause.message.clone()
                } else {
                    format!("{}: {}", cause.field, cause.message)
                }
            })
            .collect();
        let message = match lines.as_slice() {
            [line] => line.clone(),
            lines => format!("{} errors: {}", lines.len(), lines.join("; ")),
        };
        Self { message, causes }
    }
}

fn cause(field: String, message: String) -> StatusCause {
    StatusCause { reason: "FieldValueInvalid".to_owned(), message, field }
}

#[cfg(test)]
#[path = "admission_tests.rs"]
mod tests;
