//! What a daemon thinks of the configuration, for people: its ConfigurationState object. The only writer of that object.
//!
//! Level-triggered: what it shall say comes through a channel, what it says through a watch; only a difference is
//! written, and an object that was deleted is made again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::watcher;
use kube::{Api, Client, Resource, ResourceExt};
use patina_crds::keys;
use patina_crds::types::{ConfigurationResult, ConfigurationState};
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::client;
use crate::config_watch::{ConfigKeeper, ConfigWatch};
use crate::tasks::Tasks;
use crate::watch::Watched;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// After a failure.
const RETRY: Duration = Duration::from_secs(10);
/// After a write: changes that come together are written together.
const REST: Duration = Duration::from_secs(1);
/// "Not read yet" is said only when it lasts: each start begins with it.
const PATIENCE: Duration = Duration::from_secs(5);
/// Limits of the API server: a condition's message, and a label's value.
const LONGEST_MESSAGE: usize = 32_768;
const LONGEST_LABEL: usize = 63;

/// Whose object it is.
#[derive(Clone, Debug)]
pub struct Component {
    /// `controller` or `speaker`: the label metallb.io/component-type.
    pub kind: &'static str,
    /// For a speaker its node, which becomes part of the object's name, and the label metallb.io/node-name.
    pub node: Option<String>,
    /// Type of the condition.
    pub condition: &'static str,
    /// Our namespace.
    pub namespace: String,
    /// Our Pod: the object's owner, so that the object goes with it.
    pub pod_name: String,
}

/// What the object shall say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// About the configuration.
    pub verdict: Verdict,
    /// Annotations that it shall have; others are left alone.
    pub annotations: BTreeMap<String, String>,
}

/// What the newest configuration is worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// None was read yet, and why.
    Unknown(String),
    /// It is in force; with a sentence for people.
    Valid(String),
    /// Refused, with all errors, one per line.
    Invalid(String),
}

impl Verdict {
    /// Of what `keeper` made of `watch`.
    #[must_use]
    pub fn of(keeper: &ConfigKeeper, watch: &ConfigWatch) -> Self {
        match (keeper.errors(), keeper.config()) {
            (Some(errors), _) => Self::Invalid(errors.to_string()),
            (None, Some(_)) => Self::Valid("the configuration is in force".to_owned()),
            (None, None) => Self::Unknown(watch.readiness().err().unwrap_or_default()),
        }
    }

    /// Result, status of the condition, its reason, its message, and the error summary.
    fn words(&self) -> (ConfigurationResult, &'static str, &'static str, String, Option<&str>) {
        let (result, status, reason, message, errors) = match self {
            Self::Unknown(why) => {
                let why = if why.is_empty() { "not read yet" } else { why };
                (ConfigurationResult::Unknown, "Unknown", "UnknownError", why, None)
            }
            Self::Valid(message) => {
                (ConfigurationResult::Valid, "True", "Reconciled", message.as_str(), None)
            }
            Self::Invalid(errors) => (
                ConfigurationResult::Invalid,
                "False",
                "ConfigurationError",
                errors.as_str(),
                Some(errors.as_str()),
            ),
        };
        (result, status, reason, cut(message), errors)
    }
}

impl Component {
    /// `controller`, or `speaker-` and the node.
    #[must_use]
    pub fn object_name(&self) -> String {
        match &self.node {
            Some(node) => format!("{}-{node}", self.kind),
            None => self.kind.to_owned(),
        }
    }

    fn labels(&self) -> BTreeMap<String, String> {
        let node = self.node.iter().filter(|node| node.len() <= LONGEST_LABEL);
        std::iter::once((keys::COMPONENT_TYPE.to_owned(), self.kind.to_owned()))
            .chain(node.map(|node| (keys::NODE_NAME.to_owned(), node.clone())))
            .collect()
    }
}

/// Starts the task; send it each new report (`None`: leave the object alone). It writes only while `may_write`.
pub fn start(
    client: Client,
    component: Component,
    may_write: impl Fn() -> bool + Send + Sync + 'static,
    tasks: &mut Tasks,
) -> watch::Sender<Option<Report>> {
    let (sender, reports) = watch::channel(None);
    let bell = Arc::new(Notify::new());
    let api: Api<ConfigurationState> = Api::namespaced(client.clone(), &component.namespace);
    let name = component.object_name();
    let scope = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let seen = Watched::start(api.clone(), scope, |_| (), Arc::clone(&bell), tasks);
    let pods = Api::namespaced(client, &component.namespace);
    let writer = Writer { api, pods, name, component, seen };
    tasks.spawn("configuration state", writer.run(reports, bell, may_write));
    sender
}

struct Writer {
    api: Api<ConfigurationState>,
    pods: Api<Pod>,
    name: String,
    component: Component,
    seen: Watched<ConfigurationState>,
}

impl Writer {
    async fn run(
        self,
        mut reports: watch::Receiver<Option<Report>>,
        bell: Arc<Notify>,
        may_write: impl Fn() -> bool,
    ) {
        let mut again: Option<Instant> = None;
        let mut unknown_since: Option<Instant> = None;
        let mut owner: Option<Option<OwnerReference>> = None;
        loop {
            tokio::select! {
                changed = reports.changed() => {
                    if changed.is_err() {
                        // The sender lives as long as the process.
                        return std::future::pending().await;
                    }
                }
                () = bell.notified() => {}
                () = at(again) => {}
            }
            again = None;
            let Some(report) = reports.borrow_and_update().clone().filter(|_| may_write()) else { continue };
            if matches!(report.verdict, Verdict::Unknown(_)) {
                let patience = *unknown_since.get_or_insert_with(Instant::now) + PATIENCE;
                if Instant::now() < patience {
                    again = Some(patience);
                    continue;
                }
            } else {
                unknown_since = None;
            }
            if !self.seen.synced() || self.seen.absent() {
                continue;
            }
            if owner.is_none() {
                owner = timed(self.owner()).await.ok();
            }
            match timed(self.bring_about(&report, owner.clone().flatten())).await {
                Ok(false) => {}
                Ok(true) => tokio::time::sleep(REST).await,
                Err(error) => {
                    tracing::warn!("cannot write ConfigurationState {}, trying again: {error}", self.name);
                    again = Some(Instant::now() + RETRY);
                }
            }
        }
    }

    /// This Pod; `None` outside a Pod, or where Pods may not be read.
    async fn owner(&self) -> kube::Result<Option<OwnerReference>> {
        // Its metadata only: to read all of a Pod is a lot of code.
        match self.pods.get_metadata_opt(&self.component.pod_name).await {
            Ok(pod) => Ok(pod.and_then(|pod| pod.owner_ref(&()))),
            Err(kube::Error::Api(status)) if status.code == 403 => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// True when something was written.
    async fn bring_about(&self, report: &Report, owner: Option<OwnerReference>) -> kube::Result<bool> {
        let mut wrote = false;
        let object = match self.seen.get(&self.component.namespace, &self.name) {
            Some(object) => {
                if let Some(body) = metadata_patch(&object, &self.component, report, owner.as_ref()) {
                    self.api.patch(&self.name, &PatchParams::default(), &Patch::Merge(body)).await?;
                    wrote = true;
                }
                object.as_ref().clone()
            }
            None => {
                let mut new = ConfigurationState::new(&self.name, Default::default());
                new.metadata = ObjectMeta {
                    name: Some(self.name.clone()),
                    labels: Some(self.component.labels()),
                    annotations: Some(report.annotations.clone()),
                    owner_references: owner.map(|owner| vec![owner]),
                    ..ObjectMeta::default()
                };
                wrote = true;
                match self.api.create(&PostParams::default(), &new).await {
                    // The watch has not shown it yet; what it shows will be looked at.
                    Err(kube::Error::Api(status)) if status.code == 409 => return Ok(true),
                    created => created?,
                }
            }
        };
        if let Some(body) = status_patch(&object, self.component.condition, &report.verdict) {
            self.api.patch_status(&self.name, &PatchParams::default(), &Patch::Merge(body)).await?;
            wrote = true;
        }
        Ok(wrote)
    }
}

/// `None`: it has all of that already.
fn metadata_patch(
    object: &ConfigurationState,
    component: &Component,
    report: &Report,
    owner: Option<&OwnerReference>,
) -> Option<Value> {
    let has = |there: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>| {
        wanted.iter().all(|(key, value)| there.get(key) == Some(value))
    };
    let (labels, owners) = (component.labels(), owner.map(|owner| vec![owner.clone()]));
    let same = has(object.labels(), &labels)
        && has(object.annotations(), &report.annotations)
        && (owners.is_none() || object.metadata.owner_references == owners);
    if same {
        return None;
    }
    let mut metadata = json!({ "labels": labels, "annotations": report.annotations });
    if let Some(owners) = owners {
        metadata["ownerReferences"] = json!(owners);
    }
    Some(json!({ "metadata": metadata }))
}

/// `None`: it says that already.
fn status_patch(object: &ConfigurationState, condition_type: &str, verdict: &Verdict) -> Option<Value> {
    let (result, status, reason, message, errors) = verdict.words();
    let now = object.status.clone().unwrap_or_default();
    let condition = now.conditions.iter().find(|condition| condition.type_ == condition_type);
    let same = now.result == Some(result)
        && now.error_summary.as_deref() == errors
        && condition.is_some_and(|c| c.status == status && c.reason == reason && c.message == message);
    if same {
        return None;
    }
    let since = condition
        .filter(|condition| condition.status == status)
        .map_or_else(Timestamp::now, |condition| condition.last_transition_time.0);
    let since = since.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    Some(json!({ "status": {
        "result": result,
        "errorSummary": errors,
        "conditions": [{
            "type": condition_type,
            "status": status,
            "reason": reason,
            "message": message,
            "lastTransitionTime": since,
        }],
    }}))
}

fn cut(message: &str) -> String {
    // The API server counts characters; bytes are never fewer.
    let mut end = message.len().min(LONGEST_MESSAGE);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    message[..end].to_owned()
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

async fn timed<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, String> {
    match tokio::time::timeout(REQUEST_TIMEOUT, request).await {
        Ok(result) => result.map_err(|error| client::brief(&error)),
        Err(_) => Err(format!("no answer within {REQUEST_TIMEOUT:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn component(node: Option<&str>) -> Component {
        Component {
            kind: if node.is_some() { "speaker" } else { "controller" },
            node: node.map(str::to_owned),
            condition: "configReconcilerValid",
            namespace: "metallb-system".to_owned(),
            pod_name: "pod".to_owned(),
        }
    }

    fn report(verdict: Verdict, annotations: &[(&str, &str)]) -> Report {
        let pair = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        Report { verdict, annotations: annotations.iter().map(pair).collect() }
    }

    fn shows(verdict: &Verdict) -> ConfigurationState {
        let mut object = ConfigurationState::new("speaker-a", Default::default());
        let patch = status_patch(&object, "configReconcilerValid", verdict).unwrap();
        object.status = serde_json::from_value(patch["status"].clone()).unwrap();
        object
    }

    #[test]
    fn names_and_labels_are_those_of_metallb() {
        assert_eq!(component(None).object_name(), "controller");
        let speaker = component(Some("a"));
        assert_eq!(speaker.object_name(), "speaker-a");
        let labels: Vec<_> =
            speaker.labels().into_iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(labels, ["metallb.io/component-type=speaker", "metallb.io/node-name=a"]);
        let long = component(Some(&"n".repeat(64)));
        assert_eq!(long.labels().len(), 1, "no label may be as long; the object must not fail for it");
    }

    #[test]
    fn a_status_that_says_it_already_is_not_written_again() {
        let all = [
            Verdict::Unknown(String::new()),
            Verdict::Valid("the configuration is in force".to_owned()),
            Verdict::Invalid("IPAddressPool x: spec.addresses[0]: no".to_owned()),
        ];
        for (n, verdict) in all.iter().enumerate() {
            let object = shows(verdict);
            for (m, other) in all.iter().enumerate() {
                assert_eq!(
                    status_patch(&object, "configReconcilerValid", other).is_none(),
                    n == m,
                    "{verdict:?} {other:?}"
                );
            }
        }
        let invalid = shows(&all[2]).status.unwrap();
        assert_eq!(invalid.result, Some(ConfigurationResult::Invalid));
        assert_eq!(invalid.conditions[0].reason, "ConfigurationError");
        assert!(invalid.error_summary.unwrap().contains("spec.addresses[0]"));
        assert_eq!(shows(&all[0]).status.unwrap().conditions[0].message, "not read yet");
    }

    #[test]
    fn metadata_is_written_when_something_of_ours_is_missing() {
        let (component, valid) =
            (component(Some("a")), report(Verdict::Valid(String::new()), &[("patina.io/x", "1")]));
        let mut object = ConfigurationState::new("speaker-a", Default::default());
        assert!(metadata_patch(&object, &component, &valid, None).is_some());
        object.metadata.labels = Some(component.labels());
        object.metadata.annotations = Some(BTreeMap::from([("other".to_owned(), "2".to_owned())]));
        let patch = metadata_patch(&object, &component, &valid, None).unwrap();
        assert_eq!(patch["metadata"]["annotations"], json!({ "patina.io/x": "1" }));
        assert!(patch["metadata"].get("ownerReferences").is_none(), "unknown is no reason to remove it");
        object.annotations_mut().insert("patina.io/x".to_owned(), "1".to_owned());
        assert_eq!(metadata_patch(&object, &component, &valid, None), None);
        let owner = OwnerReference { name: "pod".to_owned(), ..OwnerReference::default() };
        assert!(metadata_patch(&object, &component, &valid, Some(&owner)).is_some());
        object.metadata.owner_references = Some(vec![owner.clone()]);
        assert_eq!(metadata_patch(&object, &component, &valid, Some(&owner)), None);
    }

    #[test]
    fn a_message_is_cut_to_what_the_api_server_takes() {
        let long = Verdict::Invalid("ü".repeat(40_000));
        let status = shows(&long).status.unwrap();
        assert_eq!(status.conditions[0].message.len(), LONGEST_MESSAGE);
        assert_eq!(status_patch(&shows(&long), "configReconcilerValid", &long), None);
    }
}
