//! Kubernetes objects in, our values out: no Kubernetes type gets past this file (but for what is written back).

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::{Namespace, Service};
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use patina_controller::convert::{LeanService, id, is_our_condition, view};
use patina_controller_core::view::{ServiceId, ServiceView};
use patina_controller_core::writes::{Ingress, Observed, SeenCondition};
use patina_crds::keys;
use patina_crds::selector::Labels;
use patina_runtime::watch::TIMEOUT;

/// What happened to Services or namespaces.
#[derive(Debug)]
pub(crate) enum Change {
    /// There, or different.
    Service(Box<(ServiceView, Observed)>),
    /// Gone.
    ServiceGone(ServiceId),
    /// The first list is complete.
    ServicesListed,
    /// There, or other labels; gone namespaces have none.
    Namespace(String, Labels),
    /// The first list is complete.
    NamespacesListed,
    /// The watch failed; it is tried again, and what is known stays.
    Failed(String),
}

/// Lists (consistently, not from a cache) and watches all Services and namespaces, from now on.
pub(crate) fn changes(client: &Client) -> BoxStream<'static, Change> {
    let services = listed(Api::<LeanService>::all(client.clone()), |event, known| match event {
        Event::Apply(LeanService(service)) | Event::InitApply(LeanService(service)) => {
            let pair = (view(&service), observed(&service));
            known.insert(pair.0.id.clone());
            vec![Change::Service(Box::new(pair))]
        }
        Event::Delete(LeanService(service)) => vec![Change::ServiceGone(id(&service))],
        Event::Init => Vec::new(),
        Event::InitDone => vec![Change::ServicesListed],
    });
    let namespaces =
        listed(Api::<PartialObjectMeta<Namespace>>::all(client.clone()), |event, known| match event {
            Event::Apply(namespace) | Event::InitApply(namespace) => {
                let labels = namespace.metadata.labels.clone().unwrap_or_default();
                known.insert(ServiceId::new("", namespace.name_any()));
                vec![Change::Namespace(namespace.name_any(), labels)]
            }
            Event::Delete(namespace) => vec![Change::Namespace(namespace.name_any(), Labels::new())],
            Event::Init => Vec::new(),
            Event::InitDone => vec![Change::NamespacesListed],
        });
    futures::stream::select(services, namespaces).boxed()
}

/// A watcher's events as changes. When it has to list again, what is not in the new list is reported as gone.
fn listed<K>(
    api: Api<K>,
    mut read: impl FnMut(Event<K>, &mut HashSet<ServiceId>) -> Vec<Change> + Send + 'static,
) -> impl Stream<Item = Change> + Send + 'static
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    let scope = watcher::Config::default().timeout(TIMEOUT);
    let mut known: HashSet<ServiceId> = HashSet::new();
    let mut before: HashSet<ServiceId> = HashSet::new();
    watcher(api, scope).default_backoff().flat_map(move |event| {
        let changes = match event {
            Ok(Event::Init) => {
                before = std::mem::take(&mut known);
                Vec::new()
            }
            Ok(event) => {
                let done = matches!(event, Event::InitDone);
                let mut changes = Vec::new();
                if let Event::Delete(object) = &event {
                    let namespace = object.namespace().unwrap_or_default();
                    known.remove(&ServiceId::new(namespace, object.name_any()));
                }
                if done {
                    changes.extend(before.drain().filter(|id| !known.contains(id)).map(gone));
                }
                changes.extend(read(event, &mut known));
                changes
            }
            Err(error) => vec![Change::Failed(error.to_string())],
        };
        futures::stream::iter(changes)
    })
}

fn gone(id: ServiceId) -> Change {
    if id.namespace.is_empty() {
        Change::Namespace(id.name.clone(), Labels::new())
    } else {
        Change::ServiceGone(id)
    }
}

/// What the status says now.
pub(crate) fn observed(service: &Service) -> Observed {
    let status = service.status.as_ref();
    let entries = status.and_then(|status| status.load_balancer.as_ref()).and_then(|lb| lb.ingress.as_ref());
    let ingress = entries.into_iter().flatten().map(|entry| {
        let ip: Option<IpAddr> = entry.ip.as_deref().and_then(|text| text.parse().ok());
        let canonical = ip.is_some_and(|ip| entry.ip.as_deref() == Some(ip.to_string().as_str()));
        let bare = entry.hostname.is_none() && entry.ports.as_ref().is_none_or(Vec::is_empty);
        Ingress { ip, as_we_write: canonical && bare && entry.ip_mode.as_deref() == Some("VIP") }
    });
    let (mut ours, mut foreign) = (Vec::new(), Vec::new());
    for condition in status.and_then(|status| status.conditions.as_ref()).into_iter().flatten() {
        let seen = SeenCondition {
            type_: condition.type_.clone(),
            status: condition.status.clone(),
            reason: condition.reason.clone(),
            message: condition.message.clone(),
            since: Some(condition.last_transition_time.0.to_string()),
            observed_generation: condition.observed_generation,
        };
        if is_our_condition(&condition.type_) { &mut ours } else { &mut foreign }.push(seen);
    }
    // Kept for each Service, and mostly one of each: no room to grow.
    let mut ingress: Vec<Ingress> = ingress.collect();
    ingress.shrink_to_fit();
    ours.shrink_to_fit();
    foreign.shrink_to_fit();
    let annotations: Option<&BTreeMap<String, String>> = service.metadata.annotations.as_ref();
    Observed {
        uid: service.metadata.uid.clone().unwrap_or_default(),
        resource_version: service.metadata.resource_version.clone().unwrap_or_default(),
        ingress,
        pool: annotations.and_then(|all| all.get(keys::IP_ALLOCATED_FROM_POOL)).cloned(),
        ours,
        foreign,
    }
}
