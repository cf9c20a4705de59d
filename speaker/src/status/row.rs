//! What is kept of a status object that is written: as much as says whether it is as it should be.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use patina_crds::keys;
use patina_crds::types::ServiceL2Status;
use patina_runtime::watch::{Row, Watched};
use patina_speaker_core::view::ServiceId;

use super::plan::{NODE, Shown, service_of};
use crate::watch::words::Words;

/// The status objects of this node.
pub type Written = Watched<ServiceL2Status, StatusRow>;

/// A status object.
#[derive(Clone, Debug)]
pub struct StatusRow(Arc<Object>);

#[derive(Debug, PartialEq, Eq)]
struct Object {
    namespace: Arc<str>,
    name: Box<str>,
    service: Option<ServiceId>,
    /// What the status says of interfaces; `None` when it is missing, or not about node and Service of the labels.
    interfaces: Option<Arc<[Arc<str>]>>,
    since: Option<Timestamp>,
    cause: Option<Arc<str>>,
    from: Option<Arc<str>>,
    /// Uids.
    owners: Arc<[Arc<str>]>,
}

impl StatusRow {
    /// What is kept of it.
    pub fn of(object: &ServiceL2Status, words: &mut Words) -> Self {
        let service = service_of(object);
        let annotation = |key: &str| object.annotations().get(key).map(String::as_str);
        Self(Arc::new(Object {
            namespace: words.text(object.metadata.namespace.as_deref().unwrap_or_default()),
            name: object.name_any().into(),
            interfaces: service.as_ref().and_then(|id| interfaces(object, id, words)),
            service,
            since: annotation(keys::SINCE).and_then(|text| text.parse().ok()),
            cause: annotation(keys::CAUSE).map(|cause| words.text(cause)),
            from: annotation(keys::FROM).map(|node| words.text(node)),
            owners: words.list(object.owner_references().iter().map(|owner| owner.uid.as_str())),
        }))
    }

    pub(super) fn name(&self) -> &str {
        &self.0.name
    }

    /// The Service that it is about.
    pub(super) fn service(&self) -> Option<&ServiceId> {
        self.0.service.as_ref()
    }

    /// Whether the status names these interfaces.
    pub(super) fn says(&self, interfaces: &BTreeSet<String>) -> bool {
        let written = self.0.interfaces.as_deref();
        written.is_some_and(|written| {
            written.iter().map(|name| &**name).eq(interfaces.iter().map(String::as_str))
        })
    }

    /// Whether the annotations tell of this announcement.
    pub(super) fn tells(&self, shown: &Shown) -> bool {
        self.0.since == Some(shown.written_since())
            && self.0.cause.as_deref() == Some(shown.cause)
            && self.0.from.as_deref() == shown.from.as_deref()
    }

    pub(super) fn is_owned_by(&self, uid: &str) -> bool {
        self.0.owners.iter().any(|owner| **owner == *uid)
    }
}

fn interfaces(object: &ServiceL2Status, id: &ServiceId, words: &mut Words) -> Option<Arc<[Arc<str>]>> {
    let status = object.status.as_ref()?;
    let labels: &BTreeMap<String, String> = object.labels();
    let about_us = status.node.as_ref() == labels.get(NODE)
        && status.service_name.as_ref() == Some(&id.name)
        && status.service_namespace.as_ref() == Some(&id.namespace);
    let names = status.interfaces.iter().map(|interface| interface.name.as_deref().unwrap_or_default());
    about_us.then(|| words.list(names))
}

impl Row for StatusRow {
    fn key(&self) -> (&str, &str) {
        (&self.0.namespace, &self.0.name)
    }

    fn same(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
