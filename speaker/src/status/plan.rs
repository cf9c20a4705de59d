//! From what this node announces and the objects it has written to the requests that are missing. A pure function.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource as _, ResourceExt as _};
use patina_speaker_core::view::ServiceId;
use serde_json::{Value, json};

use super::kind::Kind;
use super::row::StatusRow;
use crate::watch::PodIdentity;

/// Labels of MetalLB's status objects.
pub(super) const NODE: &str = "metallb.io/node";
pub(super) const SERVICE_NAME: &str = "metallb.io/service-name";
pub(super) const SERVICE_NAMESPACE: &str = "metallb.io/service-namespace";

/// What the status objects of this node shall say.
#[derive(Debug)]
pub struct Wanted<K: Kind> {
    /// The Services that this node announces.
    pub services: Arc<BTreeMap<ServiceId, K::Shown>>,
    /// The speaker's Pod, which owns the objects: they vanish with it.
    pub owner: Option<PodIdentity>,
}

impl<K: Kind> Default for Wanted<K> {
    fn default() -> Self {
        Self { services: Arc::default(), owner: None }
    }
}

impl<K: Kind> Clone for Wanted<K> {
    fn clone(&self) -> Self {
        Self { services: Arc::clone(&self.services), owner: self.owner.clone() }
    }
}

impl<K: Kind> PartialEq for Wanted<K> {
    fn eq(&self, other: &Self) -> bool {
        let same = Arc::ptr_eq(&self.services, &other.services) || self.services == other.services;
        same && self.owner == other.owner
    }
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Make an object for this Service and fill in its status.
    Create(ServiceId),
    /// Fill in the status of the object of this name.
    SetStatus(String, ServiceId),
    /// Hand the object of this name to the present Pod, and tell of the present announcement.
    SetMeta(String, ServiceId),
    /// Delete the object of this name.
    Delete(String),
}

/// What is missing. `mine` are the objects that carry this node's label.
pub(super) fn plan<'a, K: Kind>(
    wanted: &Wanted<K>,
    mine: impl IntoIterator<Item = &'a StatusRow<K>>,
) -> Vec<Action> {
    let mut actions = Vec::new();
    let mut covered = BTreeSet::new();
    for object in mine {
        let name = || object.name().to_owned();
        let shown = object.service().and_then(|id| Some((id, wanted.services.get(id)?)));
        let Some((id, shown)) = shown.filter(|(id, _)| covered.insert(*id)) else {
            // Not announced any more, a second one, or not labelled as ours are.
            actions.push(Action::Delete(name()));
            continue;
        };
        if !object.says(shown) {
            actions.push(Action::SetStatus(name(), id.clone()));
        }
        let owned = wanted.owner.as_ref().is_none_or(|owner| object.is_owned_by(&owner.uid));
        if !(owned && object.tells(shown)) {
            actions.push(Action::SetMeta(name(), id.clone()));
        }
    }
    let missing = wanted.services.keys().filter(|id| !covered.contains(id));
    actions.extend(missing.cloned().map(Action::Create));
    actions
}

/// The Service that an object is about, by its labels.
pub(super) fn service_of(object: &impl kube::Resource) -> Option<ServiceId> {
    let labels = object.labels();
    Some(ServiceId::new(labels.get(SERVICE_NAMESPACE)?, labels.get(SERVICE_NAME)?))
}

/// A new object. Its status is another request: the API server ignores it in this one.
pub(super) fn object<K: Kind>(
    node: &str,
    id: &ServiceId,
    shown: &K::Shown,
    owner: Option<&PodIdentity>,
) -> K::Object {
    let mut object = K::Object::default();
    let metadata = object.meta_mut();
    metadata.generate_name = Some(K::PREFIX.to_owned());
    metadata.labels = Some(BTreeMap::from([
        (NODE.to_owned(), node.to_owned()),
        (SERVICE_NAME.to_owned(), id.name.clone()),
        (SERVICE_NAMESPACE.to_owned(), id.namespace.clone()),
    ]));
    let told = K::annotations(shown).into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
    metadata.annotations = Some(told.collect()).filter(|told: &BTreeMap<_, _>| !told.is_empty());
    metadata.owner_references = owner.map(|owner| vec![owner_reference(owner)]);
    object
}

/// The whole status.
pub(super) fn status<K: Kind>(node: &str, id: &ServiceId, shown: &K::Shown) -> Value {
    let mut status = K::status(shown);
    status["node"] = json!(node);
    status["serviceName"] = json!(id.name);
    status["serviceNamespace"] = json!(id.namespace);
    status
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
    use k8s_openapi::jiff::Timestamp;
    use patina_crds::types::ServiceL2Status;

    use super::super::kind::{Bgp, L2, ShownL2};
    use super::*;
    use crate::watch::words::Words;

    type Wanted = super::Wanted<L2>;

    fn wanted(services: &[(&str, &[&str])]) -> Wanted {
        let shown = |interfaces: &[&str]| ShownL2 {
            interfaces: Arc::new(interfaces.iter().map(|name| (*name).to_owned()).collect()),
            since: Timestamp::from_nanosecond(1_700_000_000_123_456_789).unwrap(),
            cause: "speakerDied",
            from: Some("node-0".into()),
        };
        let services = services.iter().map(|(name, names)| (ServiceId::new("default", *name), shown(names)));
        Wanted {
            services: Arc::new(services.collect()),
            owner: Some(PodIdentity { name: "speaker-1".to_owned(), uid: "uid-1".to_owned() }),
        }
    }

    fn other(wanted: &Wanted, change: impl Fn(&mut ShownL2)) -> Wanted {
        let mut other = wanted.clone();
        Arc::make_mut(&mut other.services).values_mut().for_each(change);
        other
    }

    fn made(name: &str, service: &str, wanted: &Wanted) -> ServiceL2Status {
        let id = ServiceId::new("default", service);
        let shown = &wanted.services[&id];
        let mut object = object::<L2>("node-1", &id, shown, wanted.owner.as_ref());
        object.metadata.name = Some(name.to_owned());
        object.status = serde_json::from_value(status::<L2>("node-1", &id, shown)).unwrap();
        object
    }

    fn written(name: &str, service: &str, wanted: &Wanted) -> StatusRow<L2> {
        row(&made(name, service, wanted))
    }

    fn row(object: &ServiceL2Status) -> StatusRow<L2> {
        // Through JSON, as it comes from the API server.
        let object = serde_json::from_value(serde_json::to_value(object).unwrap()).unwrap();
        StatusRow::of(&object, &mut Words::default())
    }

    #[test]
    fn what_is_announced_gets_an_object_and_what_is_written_stays_untouched() {
        let wanted = wanted(&[("api", &["eth0", "eth1"]), ("web", &[])]);
        let web = written("l2-a", "web", &wanted);
        let id = ServiceId::new("default", "api");
        assert_eq!(plan(&wanted, [&web]), [Action::Create(id)]);
        let api = written("l2-b", "api", &wanted);
        assert_eq!(plan(&wanted, [&web, &api]), []);
        let nobody_before = other(&wanted, |shown| shown.from = None);
        let objects = [written("l2-a", "web", &nobody_before), written("l2-b", "api", &nobody_before)];
        assert_eq!(plan(&nobody_before, &objects), []);
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
        assert_eq!(plan(&wanted(&[("web", &[])]), &objects), deletes);
    }

    #[test]
    fn other_interfaces_a_missing_status_and_one_of_another_node_are_repaired() {
        let now = wanted(&[("web", &["eth1"])]);
        let id = ServiceId::new("default", "web");
        let set_status = Action::SetStatus("l2-a".to_owned(), id);
        let other_interfaces = written("l2-a", "web", &wanted(&[("web", &["eth0"])]));
        let mut no_status = made("l2-a", "web", &now);
        no_status.status = None;
        let mut foreign = made("l2-a", "web", &now);
        foreign.status.as_mut().unwrap().node = Some("node-2".to_owned());
        for object in [other_interfaces, row(&no_status), row(&foreign)] {
            assert_eq!(plan(&now, [&object]), std::slice::from_ref(&set_status));
        }
    }

    #[test]
    fn another_pod_and_another_announcement_are_told() {
        let now = wanted(&[("web", &["eth1"])]);
        let set_meta = Action::SetMeta("l2-a".to_owned(), ServiceId::new("default", "web"));
        let mut predecessor = now.clone();
        predecessor.owner = Some(PodIdentity { name: "speaker-0".to_owned(), uid: "uid-0".to_owned() });
        let changed = [
            predecessor.clone(),
            other(&now, |shown| shown.since = Timestamp::UNIX_EPOCH),
            other(&now, |shown| shown.cause = "first"),
            other(&now, |shown| shown.from = None),
        ];
        for before in changed {
            let object = written("l2-a", "web", &before);
            assert_eq!(plan(&now, [&object]), std::slice::from_ref(&set_meta), "{before:?}");
        }
        let unknown = Wanted { owner: None, ..now };
        let object = written("l2-a", "web", &predecessor);
        assert_eq!(plan(&unknown, [&object]), [], "outside a Pod nobody owns it");
    }
    #[test]
    fn a_service_that_goes_to_other_peers_is_told_and_the_same_ones_are_no_write() {
        let id = ServiceId::new("default", "web");
        let wanted = |peers: &[&str]| super::Wanted::<Bgp> {
            services: Arc::new([(id.clone(), peers.iter().map(|peer| Arc::from(*peer)).collect())].into()),
            owner: None,
        };
        let now = wanted(&["tor-1", "tor-2"]);
        let written = |wanted: &super::Wanted<Bgp>| {
            let shown = &wanted.services[&id];
            let mut object = object::<Bgp>("node-1", &id, shown, None);
            object.metadata.name = Some("bgp-a".to_owned());
            object.status = serde_json::from_value(status::<Bgp>("node-1", &id, shown)).unwrap();
            StatusRow::<Bgp>::of(&object, &mut Words::default())
        };
        assert_eq!(plan(&now, [&written(&now)]), []);
        let set_status = Action::SetStatus("bgp-a".to_owned(), id.clone());
        assert_eq!(plan(&now, [&written(&wanted(&["tor-1"]))]), [set_status]);
    }
}
