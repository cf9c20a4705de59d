//! What is kept of a status object that is written: as much as says whether it is as it should be.

use std::fmt::{self, Debug, Formatter};
use std::sync::Arc;

use kube::ResourceExt as _;
use patina_runtime::watch::{Row, Watched};
use patina_speaker_core::view::ServiceId;

use super::kind::Kind;
use super::plan::{NODE, service_of};
use crate::watch::words::Words;

/// The status objects of this node.
pub type Written<K> = Watched<<K as Kind>::Object, StatusRow<K>>;

/// A status object.
pub struct StatusRow<K: Kind>(Arc<Object<K>>);

struct Object<K: Kind> {
    namespace: Arc<str>,
    name: Box<str>,
    service: Option<ServiceId>,
    /// `None` when it is missing, or not about node and Service of the labels.
    status: Option<K::Status>,
    told: K::Told,
    /// Uids.
    owners: Arc<[Arc<str>]>,
}

impl<K: Kind> StatusRow<K> {
    /// What is kept of it.
    pub fn of(object: &K::Object, words: &mut Words) -> Self {
        let service = service_of(object);
        let node = object.labels().get(NODE).map(String::as_str).unwrap_or_default();
        Self(Arc::new(Object {
            namespace: words.text(object.namespace().as_deref().unwrap_or_default()),
            name: object.name_any().into(),
            status: service.as_ref().and_then(|id| K::read(object, node, id, words)),
            service,
            told: K::told(object, words),
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

    /// Whether the status says this.
    pub(super) fn says(&self, shown: &K::Shown) -> bool {
        self.0.status.as_ref().is_some_and(|status| K::says(status, shown))
    }

    /// Whether the annotations tell of this announcement.
    pub(super) fn tells(&self, shown: &K::Shown) -> bool {
        K::tells(&self.0.told, shown)
    }

    pub(super) fn is_owned_by(&self, uid: &str) -> bool {
        self.0.owners.iter().any(|owner| **owner == *uid)
    }
}

impl<K: Kind> Clone for StatusRow<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K: Kind> Debug for StatusRow<K> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatusRow")
            .field("name", &self.0.name)
            .field("status", &self.0.status)
            .finish_non_exhaustive()
    }
}

impl<K: Kind> Row for StatusRow<K> {
    fn key(&self) -> (&str, &str) {
        (&self.0.namespace, &self.0.name)
    }

    fn same(&self, other: &Self) -> bool {
        let (this, other) = (&self.0, &other.0);
        this.namespace == other.namespace
            && this.name == other.name
            && this.service == other.service
            && this.status == other.status
            && this.told == other.told
            && this.owners == other.owners
    }
}
