//! What people see of the configuration as such: the ConfigurationState object `controller`, and Warning events on the
//! objects that are wrong, or that have addresses which the network uses itself. Written by the leader.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, ObjectReference};
use kube::api::ListParams;
use kube::{Api, Client, Resource, ResourceExt};
use patina_controller::surroundings::in_pool;
use patina_controller_core::surroundings::{InUse, Surroundings};
use patina_crds::config::{ObjectRef, Resources};
use patina_runtime::config_state::{self, Component, Report};
use patina_runtime::config_watch::{ConfigKeeper, ConfigWatch};
use patina_runtime::events::{EventType, Events};
use patina_runtime::tasks::Tasks;
use tokio::sync::watch;

use crate::leader::Standing;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// So many addresses of a pool that the network uses are named, the others counted: an event takes 1024 bytes.
const NAMED: usize = 8;

/// What the newest configuration was worth.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Verdict {
    report: Report,
    /// Warnings, one per object and kind.
    warnings: Vec<Warning>,
}

#[derive(Clone, Debug, PartialEq)]
struct Warning {
    object: ObjectReference,
    reason: &'static str,
    message: String,
}

impl Verdict {
    /// Of what `keeper` made of `watch`, in these surroundings.
    pub(crate) fn of(keeper: &ConfigKeeper, watch: &ConfigWatch, surroundings: &Surroundings) -> Self {
        let verdict = config_state::Verdict::of(keeper, watch);
        let resources = watch.resources();
        let mut warnings = complaints(keeper, &resources);
        warnings.extend(keeper.config().iter().flat_map(|config| config.pools.values()).filter_map(|pool| {
            let used = in_pool(pool, surroundings);
            let message = (!used.is_empty()).then(|| skipped(&used))?;
            Some(Warning {
                object: reference(&pool.source, &resources),
                reason: "AddressesUsedByNetwork",
                message,
            })
        }));
        Self { report: Report { verdict, annotations: BTreeMap::new() }, warnings }
    }
}

/// Errors and notices, by the object that they are about.
fn complaints(keeper: &ConfigKeeper, resources: &Resources) -> Vec<Warning> {
    let mut by_object: BTreeMap<(&ObjectRef, &'static str), Vec<String>> = BTreeMap::new();
    for error in keeper.errors().iter().flat_map(|errors| &errors.0) {
        let text = format!("{}: {}", error.field, error.message);
        by_object.entry((&error.object, "ConfigurationError")).or_default().push(text);
    }
    for notice in keeper.notices() {
        let texts = by_object.entry((&notice.object, "ConfigurationNotice")).or_default();
        texts.push(notice.message.clone());
    }
    let warning = |((object, reason), texts): ((&ObjectRef, &'static str), Vec<String>)| {
        let mut message = texts.join("; ");
        if reason == "ConfigurationError" {
            let in_force = keeper.config().is_some();
            message += if in_force {
                ". The last good configuration stays in force."
            } else {
                ". No configuration is in force; Services are left as they are."
            };
        }
        Warning { object: reference(object, resources), reason, message }
    };
    by_object.into_iter().map(warning).collect()
}

/// The owner of a pool hears which of its addresses nobody gets.
fn skipped(used: &[InUse]) -> String {
    let one = |used: &InUse| {
        let (first, last) = (used.range.first(), used.range.last());
        if first == last {
            format!("{first} is {}", used.by)
        } else {
            format!("{} is {}", used.range, used.by)
        }
    };
    let mut named: Vec<_> = used.iter().take(NAMED).map(one).collect();
    if used.len() > NAMED {
        named.push(format!("and {} more", used.len() - NAMED));
    }
    format!(
        "the network uses these addresses of the pool itself, so no Service is given them: {}",
        named.join("; ")
    )
}

/// Starts the task; send it each new verdict.
pub(crate) fn start(
    client: Client,
    namespace: &str,
    pod_name: &str,
    standing: Standing,
    events: Events,
    tasks: &mut Tasks,
) -> watch::Sender<Option<Verdict>> {
    let (sender, verdicts) = watch::channel(None);
    let component = Component {
        kind: "controller",
        node: None,
        condition: "poolReconcilerValid",
        namespace: namespace.to_owned(),
        pod_name: pod_name.to_owned(),
    };
    let leading = standing.clone();
    let reports = config_state::start(client.clone(), component, move || leading.leads(), tasks);
    let config_maps = Api::namespaced(client, namespace);
    tasks.spawn("configuration", Teller { config_maps, standing, events, reports }.run(verdicts));
    sender
}

/// Says the warnings, and passes the rest on.
struct Teller {
    config_maps: Api<ConfigMap>,
    standing: Standing,
    events: Events,
    reports: watch::Sender<Option<Report>>,
}

impl Teller {
    async fn run(self, mut verdicts: watch::Receiver<Option<Verdict>>) {
        let mut told: Vec<Warning> = Vec::new();
        while verdicts.changed().await.is_ok() {
            let verdict = verdicts.borrow_and_update().clone();
            let warnings = verdict.as_ref().map(|verdict| verdict.warnings.clone()).unwrap_or_default();
            self.reports.send_replace(verdict.map(|verdict| verdict.report));
            if told != warnings && self.standing.leads() {
                self.warn(&warnings).await;
                told = warnings;
            }
        }
        // The sender lives as long as the process.
        std::future::pending().await
    }

    async fn warn(&self, warnings: &[Warning]) {
        for warning in warnings {
            let mut object = warning.object.clone();
            if object.kind.as_deref() == Some("ConfigMap") {
                object.uid = self.uid_of_config_map(object.name.as_deref().unwrap_or_default()).await;
            }
            self.events.publish(&object, EventType::Warning, warning.reason, &warning.message);
        }
    }

    /// `kubectl describe` finds events by uid. Asked by a list, because that is what the role allows.
    async fn uid_of_config_map(&self, name: &str) -> Option<String> {
        let params = ListParams::default().fields(&format!("metadata.name={name}"));
        let list = tokio::time::timeout(REQUEST_TIMEOUT, self.config_maps.list(&params)).await.ok()?.ok()?;
        list.items.first().and_then(ResourceExt::uid)
    }
}

fn reference(object: &ObjectRef, resources: &Resources) -> ObjectReference {
    fn uid<K: Resource>(objects: &[K], name: &str) -> Option<String> {
        objects.iter().find(|object| object.name_any() == name).and_then(ResourceExt::uid)
    }
    let name = object.name.as_str();
    let (api_version, uid) = match object.kind.as_str() {
        "IPAddressPool" => ("metallb.io/v1beta1", uid(&resources.pools, name)),
        "L2Advertisement" => ("metallb.io/v1beta1", uid(&resources.l2_advertisements, name)),
        "BGPAdvertisement" => ("metallb.io/v1beta1", uid(&resources.bgp_advertisements, name)),
        "BGPPeer" => ("metallb.io/v1beta2", uid(&resources.peers, name)),
        "BFDProfile" => ("metallb.io/v1beta1", uid(&resources.bfd_profiles, name)),
        "Community" => ("metallb.io/v1beta1", uid(&resources.communities, name)),
        "AddressReservation" => ("patina.io/v1beta1", uid(&resources.reservations, name)),
        _ => ("v1", None),
    };
    let namespace = if object.namespace.is_empty() { &resources.namespace } else { &object.namespace };
    ObjectReference {
        api_version: Some(api_version.to_owned()),
        kind: Some(object.kind.clone()),
        namespace: Some(namespace.clone()),
        name: Some(object.name.clone()),
        uid,
        ..ObjectReference::default()
    }
}
