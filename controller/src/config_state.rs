//! What people see of the configuration as such: the ConfigurationState object `controller`, and Warning events on the
//! objects that are wrong. Written by the leader.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::watcher;
use kube::{Api, Client, Resource, ResourceExt};
use patina_crds::config::{ObjectRef, Resources};
use patina_crds::types::{ConfigurationResult, ConfigurationState};
use patina_runtime::config_watch::ConfigKeeper;
use patina_runtime::events::{EventType, Events};
use patina_runtime::tasks::Tasks;
use patina_runtime::watch::Watched;
use serde_json::json;
use tokio::sync::{Notify, watch};

use crate::leader::Standing;

const NAME: &str = "controller";
const COMPONENT_LABEL: &str = "metallb.io/component-type";
const CONDITION: &str = "poolReconcilerValid";
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(10);

/// What the newest configuration was worth.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Verdict {
    /// All errors, one per line; `None`: it is in force.
    errors: Option<String>,
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
    /// Of what `keeper` made of `resources`.
    pub(crate) fn of(keeper: &ConfigKeeper, resources: &Resources) -> Self {
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
        Self {
            errors: keeper.errors().map(ToString::to_string),
            warnings: by_object.into_iter().map(warning).collect(),
        }
    }
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
    let (sender, receiver) = watch::channel(None);
    let bell = Arc::new(Notify::new());
    let api: Api<ConfigurationState> = Api::namespaced(client.clone(), namespace);
    let scope = watcher::Config::default().fields(&format!("metadata.name={NAME}"));
    let seen = Watched::start(api.clone(), scope, |_| (), Arc::clone(&bell), tasks);
    let state = State {
        api,
        client,
        namespace: namespace.to_owned(),
        pod_name: pod_name.to_owned(),
        seen,
        standing,
        events,
    };
    tasks.spawn("configuration state", state.run(receiver, bell));
    sender
}

struct State {
    api: Api<ConfigurationState>,
    client: Client,
    namespace: String,
    pod_name: String,
    seen: Watched<ConfigurationState>,
    standing: Standing,
    events: Events,
}

impl State {
    async fn run(self, mut verdicts: watch::Receiver<Option<Verdict>>, bell: Arc<Notify>) {
        let mut retry = false;
        // What events were last told of: not what `changed` says, because another bell may be the first to see a verdict.
        let mut told: Option<Verdict> = None;
        let mut owner: Option<Option<OwnerReference>> = None;
        loop {
            tokio::select! {
                changed = verdicts.changed() => {
                    if changed.is_err() {
                        // The sender lives as long as the process.
                        return std::future::pending().await;
                    }
                }
                () = bell.notified() => {}
                () = tokio::time::sleep(RETRY), if retry => {}
            }
            retry = false;
            let Some(verdict) = verdicts.borrow_and_update().clone() else { continue };
            if !self.standing.leads() {
                continue;
            }
            if told.as_ref() != Some(&verdict) {
                self.warn(&verdict).await;
                told = Some(verdict.clone());
            }
            if !self.seen.synced() || self.seen.absent() {
                continue;
            }
            if owner.is_none() {
                owner = timed(self.owner()).await.ok();
            }
            let owner = owner.clone().flatten();
            if let Err(error) = timed(self.bring_about(&verdict, owner)).await {
                tracing::warn!("cannot write ConfigurationState {NAME}, trying again: {error}");
                retry = true;
            }
        }
    }

    async fn warn(&self, verdict: &Verdict) {
        for warning in &verdict.warnings {
            let mut object = warning.object.clone();
            if object.kind.as_deref() == Some("ConfigMap") {
                object.uid = self.uid_of_config_map(object.name.as_deref().unwrap_or_default()).await;
            }
            self.events.publish(&object, EventType::Warning, warning.reason, &warning.message);
        }
    }

    /// `kubectl describe` finds events by uid. Asked by a list, because that is what the role allows.
    async fn uid_of_config_map(&self, name: &str) -> Option<String> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        let params = ListParams::default().fields(&format!("metadata.name={name}"));
        let list = timed(api.list(&params)).await.ok()?;
        list.items.first().and_then(ResourceExt::uid)
    }

    /// This Pod, so that the object goes with it; `None` outside a Pod, or where Pods may not be read.
    async fn owner(&self) -> kube::Result<Option<OwnerReference>> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        match api.get_opt(&self.pod_name).await {
            Ok(pod) => Ok(pod.and_then(|pod| pod.owner_ref(&()))),
            Err(kube::Error::Api(status)) if status.code == 403 => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn bring_about(&self, verdict: &Verdict, owner: Option<OwnerReference>) -> kube::Result<()> {
        let labels = BTreeMap::from([(COMPONENT_LABEL.to_owned(), NAME.to_owned())]);
        let owners = owner.map(|owner| vec![owner]);
        let object = match self.seen.get(&self.namespace, NAME) {
            Some(object) => {
                let others = owners.is_some() && object.metadata.owner_references != owners;
                if others || object.labels().get(COMPONENT_LABEL).map(String::as_str) != Some(NAME) {
                    let body = json!({ "metadata": { "labels": labels, "ownerReferences": owners } });
                    self.api.patch(NAME, &PatchParams::default(), &Patch::Merge(body)).await?;
                }
                object.as_ref().clone()
            }
            None => {
                let mut new = ConfigurationState::new(NAME, Default::default());
                new.metadata = ObjectMeta {
                    name: Some(NAME.to_owned()),
                    labels: Some(labels),
                    owner_references: owners,
                    ..ObjectMeta::default()
                };
                match self.api.create(&PostParams::default(), &new).await {
                    // The watch has not shown it yet; what it shows will be looked at.
                    Err(kube::Error::Api(status)) if status.code == 409 => return Ok(()),
                    created => created?,
                }
            }
        };
        let Some(body) = status_patch(&object, verdict) else { return Ok(()) };
        self.api.patch_status(NAME, &PatchParams::default(), &Patch::Merge(body)).await?;
        Ok(())
    }
}

/// `None`: it shows that already.
fn status_patch(object: &ConfigurationState, verdict: &Verdict) -> Option<serde_json::Value> {
    let (result, condition_status, reason) = match verdict.errors {
        None => (ConfigurationResult::Valid, "True", "Reconciled"),
        Some(_) => (ConfigurationResult::Invalid, "False", "ConfigurationError"),
    };
    let now = object.status.clone().unwrap_or_default();
    let condition = now.conditions.iter().find(|condition| condition.type_ == CONDITION);
    let message = verdict.errors.clone().unwrap_or_else(|| "the configuration is in force".to_owned());
    let same = now.result == Some(result)
        && now.error_summary == verdict.errors
        && condition
            .is_some_and(|c| c.status == condition_status && c.reason == reason && c.message == message);
    if same {
        return None;
    }
    let since = condition
        .filter(|condition| condition.status == condition_status)
        .map_or_else(Timestamp::now, |condition| condition.last_transition_time.0);
    let since = since.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    Some(json!({ "status": {
        "result": result,
        "errorSummary": verdict.errors,
        "conditions": [{
            "type": CONDITION,
            "status": condition_status,
            "reason": reason,
            "message": message,
            "lastTransitionTime": since,
        }],
    }}))
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

async fn timed<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, String> {
    match tokio::time::timeout(REQUEST_TIMEOUT, request).await {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {REQUEST_TIMEOUT:?}")),
    }
}
