//! From what this node announces and the objects it has written to the requests that are missing. A pure function.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt as _;
use patina_crds::types::{InterfaceInfo, ServiceL2Status, ServiceL2StatusStatus};
use patina_speaker_core::view::ServiceId;

use crate::watch::PodIdentity;

/// Labels of MetalLB's status objects.
pub(super) const NODE: &str = "metallb.io/node";
pub(super) const SERVICE_NAME: &str = "metallb.io/service-name";
pub(super) const SERVICE_NAMESPACE: &str = "metallb.io/service-namespace";

/// What the status objects of this node shall say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The Services that this node announces, each with its interfaces; none means all.
    pub services: BTreeMap<ServiceId, BTreeSet<String>>,
    /// The speaker's Pod, which owns the objects: they vanish with it.
    pub owner: Option<PodIdentity>,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Make an object for this Service and fill in its status.
    Create(ServiceId),
    /// Fill in the status of the object of this name.
    SetStatus(String, ServiceId),
    /// Hand the object of this name to the present Pod.
    SetOwner(String),
    /// Delete the object of this name.
    Delete(String),
}

/// What is missing. `mine` are the objects that carry this node's label.
pub(super) fn plan<'a>(
    wanted: &Wanted,
    node: &str,
    mine: impl IntoIterator<Item = &'a ServiceL2Status>,
) -> Vec<Action> {
    let mut actions = Vec::new();
    let mut covered = BTreeSet::new();
    for object in mine {
        let name = object.name_any();
        let service = service_of(object);
        let interfaces = service.as_ref().and_then(|id| Some((id, wanted.services.get(id)?)));
        let Some((id, interfaces)) = interfaces.filter(|(id, _)| covered.insert((*id).clone())) else {
            // Not announced any more, a second one, or not labelled as ours are.
            actions.push(Action::Delete(name));
            continue;
        };
        if object.status.as_ref() != Some(&status(node, id, interfaces)) {
            actions.push(Action::SetStatus(name.clone(), id.clone()));
        }
        if let Some(owner) = &wanted.owner
            && !object.owner_references().iter().any(|reference| reference.uid == owner.uid)
        {
            actions.push(Action::SetOwner(name));
        }
    }
    let missing = wanted.services.keys().filter(|id| !covered.contains(*id));
    actions.extend(missing.cloned().map(Action::Create));
    actions
}

/// The Service that an object is about, by its labels.
pub(super) fn service_of(object: &impl kube::Resource) -> Option<ServiceId> {
    let labels = object.labels();
    Some(ServiceId::new(labels.get(SERVICE_NAMESPACE)?, labels.get(SERVICE_NAME)?))
}

/// A new object. Its status is another request: the API server ignores it in this one.
pub(super) fn object(node: &str, id: &ServiceId, owner: Option<&PodIdentity>) -> ServiceL2Status {
    let mut object = ServiceL2Status::default();
    object.metadata.generate_name = Some("l2-".to_owned());
    object.metadata.labels = Some(BTreeMap::from([
        (NODE.to_owned(), node.to_owned()),
        (SERVICE_NAME.to_owned(), id.name.clone()),
        (SERVICE_NAMESPACE.to_owned(), id.namespace.clone()),
    ]));
    object.metadata.owner_references = owner.map(|owner| vec![owner_reference(owner)]);
    object
}

pub(super) fn status(node: &str, id: &ServiceId, interfaces: &BTreeSet<String>) -> ServiceL2StatusStatus {
    ServiceL2StatusStatus {
        node: Some(node.to_owned()),
        service_name: Some(id.name.clone()),
        service_namespace: Some(id.namespace.clone()),
        interfaces: interfaces.iter().map(|name| InterfaceInfo { name: Some(name.clone()) }).collect(),
    }
}

pub(super) fn owner_reference(owner: &PodIdentity) -> OwnerReference {
    OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Pod".to_owned(),
        name: owner.name.clone(),
        uid: owner.uid.clone(),
        ..OwnerReference::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(services: &[(&str, &[&str])]) -> Wanted {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Wanted {
            services: services
                .iter()
                .map(|(name, interfaces)| (ServiceId::new("default", *name), set(interfaces)))
                .collect(),
            owner: Some(PodIdentity { name: "speaker-1".to_owned(), uid: "uid-1".to_owned() }),
        }
    }

    fn written(name: &str, service: &str, wanted: &Wanted) -> ServiceL2Status {
        let id = ServiceId::new("default", service);
        let mut object = object("node-1", &id, wanted.owner.as_ref());
        object.metadata.name = Some(name.to_owned());
        object.status = Some(status("node-1", &id, &wanted.services[&id]));
        object
    }

    #[test]
    fn what_is_announced_gets_an_object_and_what_is_written_stays_untouched() {
        let wanted = wanted(&[("api", &["eth0"]), ("web", &[])]);
        let web = written("l2-a", "web", &wanted);
        let id = ServiceId::new("default", "api");
        assert_eq!(plan(&wanted, "node-1", [&web]), [Action::Create(id)]);
        let api = written("l2-b", "api", &wanted);
        assert_eq!(plan(&wanted, "node-1", [&web, &api]), []);
    }

    #[test]
    fn a_withdrawn_service_and_a_second_object_are_deleted() {
        let before = wanted(&[("web", &[]), ("old", &[])]);
        let objects = [
            written("l2-a", "web", &before),
            written("l2-b", "web", &before),
            written("l2-c", "old", &before),
        ];
        let deletes = [Action::Delete("l2-b".to_owned()), Action::Delete("l2-c".to_owned())];
        assert_eq!(plan(&wanted(&[("web", &[])]), "node-1", &objects), deletes);
    }

    #[test]
    fn other_interfaces_a_missing_status_and_another_pod_are_repaired() {
        let now = wanted(&[("web", &["eth1"])]);
        let id = ServiceId::new("default", "web");
        let set_status = Action::SetStatus("l2-a".to_owned(), id);
        let other_interfaces = written("l2-a", "web", &wanted(&[("web", &["eth0"])]));
        let mut no_status = written("l2-a", "web", &now);
        no_status.status = None;
        for object in [other_interfaces, no_status] {
            assert_eq!(plan(&now, "node-1", [&object]), std::slice::from_ref(&set_status));
        }

        let mut predecessor = now.clone();
        predecessor.owner = Some(PodIdentity { name: "speaker-0".to_owned(), uid: "uid-0".to_owned() });
        let object = written("l2-a", "web", &predecessor);
        assert_eq!(plan(&now, "node-1", [&object]), [Action::SetOwner("l2-a".to_owned())]);
        let unknown = Wanted { owner: None, ..now };
        assert_eq!(plan(&unknown, "node-1", [&object]), [], "outside a Pod nobody owns it");
    }
}
