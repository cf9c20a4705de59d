//! From the conflicts that are seen and the objects that are written to the requests that are missing. A pure function.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt as _;
use patina_crds::types::{AddressConflict, AddressConflictSpec, ConflictService};

use super::Seen;
use crate::watch::PodIdentity;

/// Label: whose object it is.
pub(super) const NODE: &str = "patina.io/node";

/// What the objects of this node shall say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// What is seen of foreign hosts, by address.
    pub seen: Arc<BTreeMap<IpAddr, Seen>>,
    /// The speaker's Pod, which owns the objects: they vanish with it.
    pub owner: Option<PodIdentity>,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Action {
    /// Make it so, whether it exists or not.
    Apply(Box<AddressConflict>),
    /// Delete the object of this name.
    Delete(String),
}

/// What is missing. `mine` are the objects that carry this node's label; `inherits`: those that we did not write stay.
pub(super) fn plan<'a>(
    wanted: &Wanted,
    node: &str,
    inherits: bool,
    mine: impl IntoIterator<Item = &'a AddressConflict>,
) -> Vec<Action> {
    let mut missing: BTreeMap<String, AddressConflict> =
        wanted.seen.iter().map(|(ip, seen)| object(*ip, seen, node, wanted.owner.as_ref())).collect();
    let mut actions = Vec::new();
    for found in mine {
        let name = found.name_any();
        match missing.get(&name) {
            Some(object) if object.spec == found.spec && is_owned(found, wanted.owner.as_ref()) => {
                missing.remove(&name);
            }
            Some(_) => {}
            None if inherits && !is_owned_alone(found, wanted.owner.as_ref()) => {}
            None => actions.push(Action::Delete(name)),
        }
    }
    actions.extend(missing.into_values().map(|object| Action::Apply(Box::new(object))));
    actions
}

fn is_owned(object: &AddressConflict, owner: Option<&PodIdentity>) -> bool {
    owner.is_none_or(|owner| object.owner_references().iter().any(|reference| reference.uid == owner.uid))
}

/// Written by this process: a predecessor's names another Pod, or nobody's.
fn is_owned_alone(object: &AddressConflict, owner: Option<&PodIdentity>) -> bool {
    owner.is_some() && is_owned(object, owner)
}

fn object(ip: IpAddr, seen: &Seen, node: &str, owner: Option<&PodIdentity>) -> (String, AddressConflict) {
    let spec = AddressConflictSpec {
        address: ip.to_string(),
        node: node.to_owned(),
        interface: seen.interface.clone(),
        mac: seen.mac_text(),
        service: ConflictService {
            namespace: seen.service.namespace.to_string(),
            name: seen.service.name.to_string(),
        },
        first_seen: seen.first.to_string(),
        in_use: seen.in_use,
    };
    let name = name(ip, node);
    let mut object = AddressConflict::new(&name, spec);
    object.metadata.labels = Some(BTreeMap::from([(NODE.to_owned(), node.to_owned())]));
    object.metadata.owner_references = owner.map(|owner| {
        vec![OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            name: owner.name.clone(),
            uid: owner.uid.clone(),
            ..OwnerReference::default()
        }]
    });
    (name, object)
}

/// One per node and address: a name of an object may have letters, digits, `-` and `.`, and 253 of them.
fn name(ip: IpAddr, node: &str) -> String {
    const LONGEST: usize = 253;
    let address = match ip {
        IpAddr::V4(ip) => ip.to_string().replace('.', "-"),
        IpAddr::V6(ip) => ip.segments().map(|segment| format!("{segment:x}")).join("-"),
    };
    let mut name = format!("{address}.{node}");
    name.truncate(LONGEST);
    name.trim_end_matches(|c: char| !c.is_ascii_alphanumeric()).to_owned()
}

#[cfg(test)]
mod tests {
    use patina_speaker_core::view::ServiceId;

    use super::*;

    fn seen(mac: u8) -> Seen {
        Seen {
            mac: [2, 0, 0, 0, 0, mac],
            interface: "eth0".to_owned(),
            service: ServiceId::new("default", "web"),
            in_use: false,
            first: k8s_openapi::jiff::Timestamp::from_second(1_700_000_000).unwrap(),
        }
    }

    fn wanted(seen: &[(&str, Seen)], pod: &str) -> Wanted {
        let seen = seen.iter().map(|(ip, seen)| (ip.parse().unwrap(), seen.clone())).collect();
        Wanted {
            seen: Arc::new(seen),
            owner: Some(PodIdentity { name: pod.to_owned(), uid: format!("uid of {pod}") }),
        }
    }

    fn applied(wanted: &Wanted) -> Vec<AddressConflict> {
        let actions = plan(wanted, "node-1", false, []);
        let object = |action| match action {
            Action::Apply(object) => *object,
            Action::Delete(name) => panic!("deletes {name}"),
        };
        actions.into_iter().map(object).collect()
    }

    #[test]
    fn each_address_gets_an_object_that_says_all_and_belongs_to_the_pod() {
        let objects = applied(&wanted(&[("192.0.2.1", seen(0x66)), ("fd00::1", seen(0x67))], "speaker-a"));
        let names: Vec<_> = objects.iter().map(|object| object.name_any()).collect();
        assert_eq!(names, ["192-0-2-1.node-1", "fd00-0-0-0-0-0-0-1.node-1"]);
        assert_eq!(
            serde_json::to_value(&objects[0]).unwrap(),
            serde_json::json!({
                "apiVersion": "patina.io/v1beta1", "kind": "AddressConflict",
                "metadata": {
                    "name": "192-0-2-1.node-1",
                    "labels": {"patina.io/node": "node-1"},
                    "ownerReferences": [
                        {"apiVersion": "v1", "kind": "Pod", "name": "speaker-a", "uid": "uid of speaker-a"}
                    ],
                },
                "spec": {
                    "address": "192.0.2.1", "node": "node-1", "interface": "eth0", "mac": "02:00:00:00:00:66",
                    "service": {"namespace": "default", "name": "web"}, "firstSeen": "2023-11-14T22:13:20Z",
                },
            })
        );
    }

    #[test]
    fn what_is_written_stays_and_what_is_over_goes() {
        let both = wanted(&[("192.0.2.1", seen(0x66)), ("192.0.2.2", seen(0x66))], "speaker-a");
        let written = applied(&both);
        assert_eq!(plan(&both, "node-1", true, &written), []);
        let one = wanted(&[("192.0.2.1", seen(0x66))], "speaker-a");
        assert_eq!(plan(&one, "node-1", true, &written), [Action::Delete("192-0-2-2.node-1".to_owned())]);
        let other_host = wanted(&[("192.0.2.1", seen(0x67)), ("192.0.2.2", seen(0x66))], "speaker-a");
        assert_eq!(plan(&other_host, "node-1", true, &written).len(), 1);
    }

    #[test]
    fn a_predecessors_objects_stay_for_a_while_and_then_are_ours_or_go() {
        let before = applied(&wanted(&[("192.0.2.1", seen(0x66)), ("192.0.2.2", seen(0x66))], "speaker-a"));
        let now = wanted(&[("192.0.2.1", seen(0x66))], "speaker-b");
        let taken_over = Action::Apply(Box::new(applied(&now).remove(0)));
        assert_eq!(plan(&now, "node-1", true, &before), std::slice::from_ref(&taken_over));
        let gone = Action::Delete("192-0-2-2.node-1".to_owned());
        assert_eq!(plan(&now, "node-1", false, &before), [gone, taken_over]);
    }

    #[test]
    fn a_name_is_one_that_the_api_server_takes() {
        let ip = "2001:db8::".parse().unwrap();
        assert_eq!(name(ip, "n.example"), "2001-db8-0-0-0-0-0-0.n.example");
        let long = format!("{}.{}", "a".repeat(232), "b".repeat(20));
        let name = name(ip, &long);
        assert!(name.len() <= 253 && name.ends_with('a'), "{name}");
    }
}
