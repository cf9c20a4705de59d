//! From what this node announces and the objects it has written to the requests that are missing. A pure function.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use patina_crds::keys;
use patina_crds::types::{InterfaceInfo, ServiceL2Status, ServiceL2StatusStatus};
use patina_speaker_core::view::ServiceId;

use super::row::StatusRow;
use crate::watch::PodIdentity;

/// Labels of MetalLB's status objects.
pub(super) const NODE: &str = "metallb.io/node";
pub(super) const SERVICE_NAME: &str = "metallb.io/service-name";
pub(super) const SERVICE_NAMESPACE: &str = "metallb.io/service-namespace";

/// What the status objects of this node shall say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The Services that this node announces.
    pub services: Arc<BTreeMap<ServiceId, Shown>>,
    /// The speaker's Pod, which owns the objects: they vanish with it.
    pub owner: Option<PodIdentity>,
}

/// What is shown of one Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// The interfaces that it is announced on; none means all. One list for many Services.
    pub interfaces: Arc<BTreeSet<String>>,
    /// When this node began. The same as long as it announces: each other value is a write.
    pub since: Timestamp,
    /// Why it began, in one word.
    pub cause: &'static str,
    /// The node that announced it before.
    pub from: Option<Arc<str>>,
}

impl Shown {
    /// As it is written: to the millisecond.
    pub(super) fn written_since(&self) -> Timestamp {
        Timestamp::from_millisecond(self.since.as_millisecond()).unwrap_or(self.since)
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
pub(super) fn plan<'a>(wanted: &Wanted, mine: impl IntoIterator<Item = &'a StatusRow>) -> Vec<Action> {
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
        if !object.says(&shown.interfaces) {
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
pub(super) fn object(
    node: &str,
    id: &ServiceId,
    shown: &Shown,
    owner: Option<&PodIdentity>,
) -> ServiceL2Status {
    let mut object = ServiceL2Status::default();
    object.metadata.generate_name = Some("l2-".to_owned());
    object.metadata.labels = Some(BTreeMap::from([
        (NODE.to_owned(), node.to_owned()),
        (SERVICE_NAME.to_owned(), id.name.clone()),
        (SERVICE_NAMESPACE.to_owned(), id.namespace.clone()),
    ]));
    let told = annotations(shown).into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
    object.metadata.annotations = Some(told.collect());
    object.metadata.owner_references = owner.map(|owner| vec![owner_reference(owner)]);
    object
}

/// Since when, why and from whom; `None`: the annotation is not there.
pub(super) fn annotations(shown: &Shown) -> [(&'static str, Option<String>); 3] {
    [
        (keys::SINCE, Some(shown.written_since().to_string())),
        (keys::CAUSE, Some(shown.cause.to_owned())),
        (keys::FROM, shown.from.as_deref().map(str::to_owned)),
    ]
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
    use crate::watch::words::Words;

    fn wanted(services: &[(&str, &[&str])]) -> Wanted {
        let shown = |interfaces: &[&str]| Shown {
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

    fn other(wanted: &Wanted, change: impl Fn(&mut Shown)) -> Wanted {
        let mut other = wanted.clone();
        Arc::make_mut(&mut other.services).values_mut().for_each(change);
        other
    }

    fn made(name: &str, service: &str, wanted: &Wanted) -> ServiceL2Status {
        let id = ServiceId::new("default", service);
        let shown = &wanted.services[&id];
        let mut object = object("node-1", &id, shown, wanted.owner.as_ref());
        object.metadata.name = Some(name.to_owned());
        object.status = Some(status("node-1", &id, &shown.interfaces));
        object
    }

    fn written(name: &str, service: &str, wanted: &Wanted) -> StatusRow {
        row(&made(name, service, wanted))
    }

    fn row(object: &ServiceL2Status) -> StatusRow {
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
}
