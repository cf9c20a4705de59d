//! The two kinds of status objects, and what is different about them.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use patina_crds::keys;
use patina_crds::types::{ServiceBGPStatus, ServiceL2Status};
use patina_speaker_core::view::ServiceId;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::watch::words::Words;

/// One of MetalLB's status kinds.
pub trait Kind: Debug + Send + Sync + 'static {
    /// The API type.
    type Object: kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Default
        + Debug
        + Serialize
        + DeserializeOwned
        + Send
        + Sync
        + 'static;
    /// What is shown of one Service.
    type Shown: Clone + Debug + PartialEq + Send + Sync + 'static;
    /// What is kept of a status that is written.
    type Status: Debug + PartialEq + Send + Sync + 'static;
    /// What is kept of its annotations.
    type Told: Debug + PartialEq + Send + Sync + 'static;

    /// Its name.
    const NAME: &'static str;
    /// What names begin with, as MetalLB's.
    const PREFIX: &'static str;
    /// Only one node announces: what others left behind is removed.
    const ALONE: bool;

    /// A status that is about this node and Service.
    fn read(object: &Self::Object, node: &str, id: &ServiceId, words: &mut Words) -> Option<Self::Status>;
    /// Whether it says this.
    fn says(status: &Self::Status, shown: &Self::Shown) -> bool;
    /// What its annotations say.
    fn told(object: &Self::Object, words: &mut Words) -> Self::Told;
    /// Whether they tell of this.
    fn tells(told: &Self::Told, shown: &Self::Shown) -> bool;
    /// The annotations; `None`: it is not there.
    fn annotations(shown: &Self::Shown) -> Vec<(&'static str, Option<String>)>;
    /// What the status has beside node and Service. Lists are written even when empty: a merge patch keeps what it does not
    /// mention.
    fn status(shown: &Self::Shown) -> Value;
}

/// ServiceL2Status.
#[derive(Debug)]
pub struct L2;

/// What is shown of a Service that is announced on the local network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShownL2 {
    /// The interfaces that it is announced on; none means all. One list for many Services.
    pub interfaces: Arc<BTreeSet<String>>,
    /// When this node began. The same as long as it announces: each other value is a write.
    pub since: Timestamp,
    /// Why it began, in one word.
    pub cause: &'static str,
    /// The node that announced it before.
    pub from: Option<Arc<str>>,
}

impl ShownL2 {
    /// As it is written: to the millisecond.
    fn written_since(&self) -> Timestamp {
        Timestamp::from_millisecond(self.since.as_millisecond()).unwrap_or(self.since)
    }
}

/// Of the annotations.
#[derive(Debug, PartialEq, Eq)]
pub struct Told {
    since: Option<Timestamp>,
    cause: Option<Arc<str>>,
    from: Option<Arc<str>>,
}

impl Kind for L2 {
    type Object = ServiceL2Status;
    type Shown = ShownL2;
    /// Names of interfaces.
    type Status = Arc<[Arc<str>]>;
    type Told = Told;

    const NAME: &'static str = "ServiceL2Status";
    const PREFIX: &'static str = "l2-";
    const ALONE: bool = true;

    fn read(object: &ServiceL2Status, node: &str, id: &ServiceId, words: &mut Words) -> Option<Self::Status> {
        let status = object.status.as_ref()?;
        let about_us = status.node.as_deref() == Some(node)
            && status.service_name.as_ref() == Some(&id.name)
            && status.service_namespace.as_ref() == Some(&id.namespace);
        let names = status.interfaces.iter().map(|interface| interface.name.as_deref().unwrap_or_default());
        about_us.then(|| words.list(names))
    }

    fn says(status: &Self::Status, shown: &ShownL2) -> bool {
        status.iter().map(|name| &**name).eq(shown.interfaces.iter().map(String::as_str))
    }

    fn told(object: &ServiceL2Status, words: &mut Words) -> Told {
        let annotation = |key: &str| object.annotations().get(key).map(String::as_str);
        Told {
            since: annotation(keys::SINCE).and_then(|text| text.parse().ok()),
            cause: annotation(keys::CAUSE).map(|cause| words.text(cause)),
            from: annotation(keys::FROM).map(|node| words.text(node)),
        }
    }

    fn tells(told: &Told, shown: &ShownL2) -> bool {
        told.since == Some(shown.written_since())
            && told.cause.as_deref() == Some(shown.cause)
            && told.from.as_deref() == shown.from.as_deref()
    }

    fn annotations(shown: &ShownL2) -> Vec<(&'static str, Option<String>)> {
        vec![
            (keys::SINCE, Some(shown.written_since().to_string())),
            (keys::CAUSE, Some(shown.cause.to_owned())),
            (keys::FROM, shown.from.as_deref().map(str::to_owned)),
        ]
    }

    fn status(shown: &ShownL2) -> Value {
        json!({ "interfaces": shown.interfaces.iter().map(|name| json!({ "name": name })).collect::<Vec<_>>() })
    }
}

/// ServiceBGPStatus.
#[derive(Debug)]
pub struct Bgp;

impl Kind for Bgp {
    type Object = ServiceBGPStatus;
    /// Names of the peers, sorted. One list for many Services.
    type Shown = Arc<[Arc<str>]>;
    type Status = Arc<[Arc<str>]>;
    type Told = ();

    const NAME: &'static str = "ServiceBGPStatus";
    const PREFIX: &'static str = "bgp-";
    const ALONE: bool = false;

    fn read(
        object: &ServiceBGPStatus,
        node: &str,
        id: &ServiceId,
        words: &mut Words,
    ) -> Option<Self::Status> {
        let status = object.status.as_ref()?;
        let about_us = status.node.as_deref() == Some(node)
            && status.service_name.as_ref() == Some(&id.name)
            && status.service_namespace.as_ref() == Some(&id.namespace);
        about_us.then(|| words.list(status.peers.iter().map(String::as_str)))
    }

    fn says(status: &Self::Status, shown: &Self::Shown) -> bool {
        status == shown
    }

    fn told(_: &ServiceBGPStatus, _: &mut Words) {}

    fn tells((): &(), _: &Self::Shown) -> bool {
        true
    }

    fn annotations(_: &Self::Shown) -> Vec<(&'static str, Option<String>)> {
        Vec::new()
    }

    fn status(shown: &Self::Shown) -> Value {
        json!({ "peers": shown.iter().map(|name| &**name).collect::<Vec<_>>() })
    }
}
