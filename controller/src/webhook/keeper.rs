//! Sees to it that there is a certificate, that it is served, and that the API server knows: one task, that looks at
//! everything after each change and does what is missing. Every replica does the same; whoever comes second finds it done.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt};
use patina_runtime::client::brief;
use patina_runtime::tasks::Tasks;
use patina_runtime::watch::Watched;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::certificates::{self, Step, Stored};
use super::injection::{Door, Found, MANAGER, PEERS, SHELL, says};
use super::metrics::Metrics;
use super::settings::{Mode, Settings};
use super::tls::Served;

/// Everything is looked at again after this long, whatever the watches say.
const ANYWAY: Duration = Duration::from_secs(30);
/// After something that did not work.
const RETRY: Duration = Duration::from_secs(1);
/// After something that we may not do; a change is looked at sooner.
const FORBIDDEN: Duration = Duration::from_secs(10);
/// An object is changed at most this often: in a rollout two versions of us may want different things.
const CALM: Duration = Duration::from_secs(1);
/// The Service has had an endpoint for this long before the API server is told to use it: it reaches the rules of
/// kube-proxy a moment later.
const SETTLE: Duration = Duration::from_secs(2);

/// No controller is ready for so long though one serves: a conversion may be what it waits for. Peers that were stored in the
/// old version (by an old MetalLB) cannot be listed without a conversion, and who cannot list them is not ready to convert.
const GIVE_UP: Duration = Duration::from_secs(10);

/// Whether the webhook is served. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Standing(Arc<Mutex<Result<(), String>>>);

impl Default for Standing {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Err("there is no certificate yet".to_owned()))))
    }
}

impl Standing {
    /// For the health of the process.
    pub(crate) fn readiness(&self) -> Result<(), String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, standing: Result<(), String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = standing;
    }
}

/// What the keeper and the server share. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shared {
    pub(crate) served: Served,
    pub(crate) standing: Standing,
    /// The API server asks us, as far as is known.
    pub(crate) in_use: Arc<AtomicBool>,
}

/// What the keeper looks at and what it has seen.
pub(crate) struct Keeper {
    client: Client,
    namespace: String,
    settings: Settings,
    shared: Shared,
    metrics: Metrics,
    bell: Arc<Notify>,
    secret: Watched<Secret>,
    shell: Watched<ValidatingWebhookConfiguration>,
    peers: Watched<CustomResourceDefinition>,
    endpoints: Watched<EndpointSlice>,
    /// Since when the Service has an endpoint that is ready.
    reachable: Option<Instant>,
    /// Since when it has none.
    unreachable: Instant,
    /// The bundle that the API server was last seen to have everywhere, and since when.
    trusted: Option<(String, SystemTime)>,
    /// What is served.
    current: Option<Stored>,
    /// When an object was changed last.
    patched: HashMap<&'static str, Instant>,
    /// What was said last about a subject.
    said: HashMap<&'static str, String>,
}

impl Keeper {
    /// Starts the watches.
    pub(crate) fn new(
        client: Client,
        namespace: &str,
        settings: Settings,
        shared: Shared,
        metrics: Metrics,
        tasks: &mut Tasks,
    ) -> Self {
        let bell = Arc::new(Notify::new());
        let named = |name: &str| watcher::Config::default().fields(&format!("metadata.name={name}"));
        let of_service = format!("kubernetes.io/service-name={}", settings.cert_service_name);
        let of_service = watcher::Config::default().labels(&of_service);
        let secrets = Api::namespaced(client.clone(), namespace);
        let slices = Api::namespaced(client.clone(), namespace);
        let ring = || Arc::clone(&bell);
        Self {
            secret: Watched::start(secrets, named(&settings.webhook_secret), |_| (), ring(), tasks),
            shell: Watched::start(Api::all(client.clone()), named(SHELL), |_| (), ring(), tasks),
            peers: Watched::start(Api::all(client.clone()), named(PEERS), without_schemas, ring(), tasks),
            endpoints: Watched::start(slices, of_service, |_| (), ring(), tasks),
            client,
            namespace: namespace.to_owned(),
            settings,
            shared,
            metrics,
            bell,
            reachable: None,
            unreachable: Instant::now(),
            trusted: None,
            current: None,
            patched: HashMap::new(),
            said: HashMap::new(),
        }
    }

    /// For ever.
    pub(crate) async fn run(mut self) {
        loop {
            let again = self.look().await;
            tokio::select! {
                () = self.bell.notified() => {}
                () = tokio::time::sleep(again.min(ANYWAY)) => {}
            }
        }
    }

    /// Does what is missing; when to look again.
    async fn look(&mut self) -> Duration {
        if self.settings.webhook_mode == Mode::Disabled {
            return self.withdraw().await;
        }
        let again = self.certificates().await;
        match self.current.clone() {
            Some(current) => again.min(self.tell(&current).await),
            None => again,
        }
    }

    /// The Secret is as it should be, and what is in it is served.
    async fn certificates(&mut self) -> Duration {
        if !self.secret.synced() {
            let why = self.secret.last_error().unwrap_or_else(|| "it was not read yet".to_owned());
            if self.current.is_none() {
                self.shared.standing.set(Err(format!("Secret {}: {why}", self.settings.webhook_secret)));
            }
            return RETRY;
        }
        let object = self.secret.get(&self.namespace, &self.settings.webhook_secret);
        let mut stored =
            Stored::read(object.as_ref().and_then(|o| o.data.as_ref()).unwrap_or(&BTreeMap::new()));
        let mut again = ANYWAY;
        if !self.settings.disable_cert_rotation {
            if let (true, Some(current)) = (stored == Stored::default(), &self.current) {
                // Somebody removed it, to have new ones. Its key is gone; what is served goes on until the new CA is known.
                stored = Stored { ca_key: None, ..current.clone() };
            }
            let now = SystemTime::now();
            let trusted =
                self.trusted.as_ref().filter(|(bundle, _)| *bundle == stored.bundle).map(|(_, since)| *since);
            let names = self.settings.names(&self.namespace);
            match certificates::next(&stored, &names, now, trusted, &self.settings.lifetimes()) {
                Ok(Step::Keep(until)) => again = until.duration_since(now).unwrap_or_default().max(RETRY / 4),
                Ok(Step::Write(new, why)) => match self.write(object.as_deref(), &new).await {
                    Ok(true) => {
                        tracing::info!(secret = self.settings.webhook_secret, "certificates written: {why}");
                        stored = new;
                        again = RETRY;
                    }
                    // Another replica did: the watch brings it.
                    Ok(false) => return RETRY,
                    Err(error) => {
                        let text = format!("cannot write the Secret: {}", brief(&error));
                        self.standing_unless_served(&text);
                        self.say("secret", text);
                        let forbidden = matches!(&error, kube::Error::Api(status) if status.is_forbidden());
                        return if forbidden { FORBIDDEN } else { RETRY };
                    }
                },
                Err(error) => {
                    self.standing_unless_served(&error.to_string());
                    self.say("secret", error.to_string());
                    return ANYWAY;
                }
            }
        }
        self.serve(stored);
        again
    }

    fn serve(&mut self, stored: Stored) {
        if !self.shared.served.is(&stored) {
            if let Err(why) = self.shared.served.load(&stored) {
                let text = format!("Secret {}: {why}", self.settings.webhook_secret);
                self.standing_unless_served(&text);
                self.say("secret", text);
                return;
            }
            tracing::info!("the webhook serves a certificate of the Secret {}", self.settings.webhook_secret);
            self.metrics.expires(stored.expiry());
            self.shared.standing.set(Ok(()));
        }
        self.said.remove("secret");
        self.current = Some(stored);
    }

    fn standing_unless_served(&self, why: &str) {
        if !self.shared.served.any() {
            self.shared.standing.set(Err(why.to_owned()));
        }
    }

    /// False: somebody else wrote it meanwhile.
    async fn write(&self, object: Option<&Secret>, stored: &Stored) -> kube::Result<bool> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let name = &self.settings.webhook_secret;
        let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        let result = match object {
            Some(object) => {
                let mut object = object.clone();
                object.data.get_or_insert_default().extend(stored.data());
                api.replace(name, &params, &object).await
            }
            None => {
                let metadata = ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() };
                api.create(&params, &Secret { metadata, data: Some(stored.data()), ..Secret::default() })
                    .await
            }
        };
        match result {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 409 || status.code == 404 => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The API server knows where we are and how to recognise us.
    async fn tell(&mut self, current: &Stored) -> Duration {
        let door = self.door(&current.bundle);
        let open = self.is_reachable();
        let (mut all, mut used, mut again) = (true, false, if open.is_none() { RETRY } else { ANYWAY });
        let shell = self.shell_state(&door);
        let peers = self.peers_state(&door);
        let deadlock = open.is_none() && self.unreachable.elapsed() >= GIVE_UP;
        for target in [shell, peers] {
            let Some(target) = target else { continue };
            if deadlock && target.subject == PEERS && target.found == Found::Ours {
                tracing::warn!(
                    "{PEERS} calls us, but no controller is ready: it converts nothing until one is"
                );
                if !self.patch(target.subject, target.undo).await {
                    again = RETRY;
                }
                continue;
            }
            if let Found::Foreign(other) = &target.found {
                self.say(target.subject, format!("{} calls {other}, not us: left alone", target.subject));
                continue;
            }
            self.said.remove(target.subject);
            used |= target.found == Found::Ours;
            if says(&target.now, &target.wanted) {
                continue;
            }
            // It may still call us with an older bundle.
            all &= target.found == Found::Nothing;
            if target.found == Found::Nothing && open.is_none_or(|since| since < SETTLE) {
                again = again.min(open.map_or(RETRY, |since| SETTLE.saturating_sub(since)));
                continue;
            }
            let calm = self.patched.get(target.subject).map(|at| CALM.saturating_sub(at.elapsed()));
            if let Some(left) = calm.filter(|left| !left.is_zero()) {
                again = again.min(left);
                continue;
            }
            if self.patch(target.subject, target.patch).await {
                tracing::info!("{} now calls {}/{}", target.subject, door.namespace, door.service);
                used = true;
            } else {
                again = RETRY;
            }
        }
        self.shared.in_use.store(used, Ordering::Relaxed);
        if all && self.trusted.as_ref().is_none_or(|(bundle, _)| *bundle != current.bundle) {
            self.trusted = Some((current.bundle.clone(), SystemTime::now()));
            again = again.min(RETRY);
        }
        again
    }

    /// Nothing calls us any more.
    async fn withdraw(&mut self) -> Duration {
        let door = self.door("");
        let mut again = ANYWAY;
        for target in [self.shell_state(&door), self.peers_state(&door)].into_iter().flatten() {
            if target.found == Found::Ours {
                if self.patch(target.subject, target.undo).await {
                    tracing::info!("{} calls nobody any more", target.subject);
                } else {
                    again = RETRY;
                }
            }
        }
        again
    }

    fn door(&self, bundle: &str) -> Door {
        Door {
            namespace: self.namespace.clone(),
            service: self.settings.cert_service_name.clone(),
            bundle: bundle.to_owned(),
            policy: self.settings.webhook_failure_policy.clone(),
        }
    }

    /// For how long the Service has had an endpoint that is ready.
    fn is_reachable(&mut self) -> Option<Duration> {
        let ready = self.endpoints.state().iter().any(|slice| {
            let somewhere = slice.ports.iter().flatten().any(|port| port.port.is_some());
            let ready = |e: &Endpoint| e.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true);
            somewhere && slice.endpoints.iter().any(ready)
        });
        if ready {
            self.unreachable = Instant::now();
        }
        self.reachable = if ready { Some(self.reachable.unwrap_or_else(Instant::now)) } else { None };
        self.reachable.map(|since| since.elapsed())
    }

    fn shell_state(&mut self, door: &Door) -> Option<Target> {
        let object = self.shell.get("", SHELL);
        let object = self.present(SHELL, self.shell.synced(), self.shell.last_error(), object)?;
        let now = serde_json::to_value(object.webhooks.as_deref().unwrap_or_default()).unwrap_or_default();
        let configs: Vec<Value> = now
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|hook| hook.get("clientConfig").cloned())
            .collect();
        let version = object.resource_version();
        let wanted = door.webhooks();
        Some(Target {
            subject: SHELL,
            found: door.whose(configs.iter()),
            patch: json!({"metadata": {"resourceVersion": version}, "webhooks": wanted}),
            undo: json!({"metadata": {"resourceVersion": version}, "webhooks": null}),
            now,
            wanted,
        })
    }

    fn peers_state(&mut self, door: &Door) -> Option<Target> {
        let object = self.peers.get("", PEERS);
        let object = self.present(PEERS, self.peers.synced(), self.peers.last_error(), object)?;
        let now = serde_json::to_value(&object.spec.conversion).unwrap_or_default();
        let called = now.get("strategy").is_some_and(|strategy| strategy == "Webhook");
        let config = now.pointer("/webhook/clientConfig").filter(|_| called);
        let version = object.resource_version();
        let wanted = door.conversion();
        Some(Target {
            subject: PEERS,
            found: door.whose(config.into_iter()),
            patch: json!({"metadata": {"resourceVersion": version}, "spec": {"conversion": wanted}}),
            undo: json!({
                "metadata": {"resourceVersion": version},
                "spec": {"conversion": {"strategy": "None", "webhook": null}},
            }),
            now,
            wanted,
        })
    }

    /// The object, or once a word about why there is none.
    fn present<K>(
        &mut self,
        subject: &'static str,
        synced: bool,
        error: Option<String>,
        object: Option<K>,
    ) -> Option<K> {
        if object.is_none() && self.settings.serves() {
            if let Some(error) = error {
                self.say(subject, format!("{subject} cannot be read: {error}"));
            } else if synced {
                let lost = if subject == SHELL {
                    "configuration is not checked before it is stored"
                } else {
                    "nothing is converted"
                };
                self.say(subject, format!("there is no {subject}: {lost} until it is there"));
            }
        }
        object
    }

    async fn patch(&mut self, subject: &'static str, patch: Value) -> bool {
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let patch = Patch::Merge(patch);
        let result = if subject == SHELL {
            let api: Api<ValidatingWebhookConfiguration> = Api::all(self.client.clone());
            api.patch(SHELL, &params, &patch).await.map(drop)
        } else {
            let api: Api<CustomResourceDefinition> = Api::all(self.client.clone());
            api.patch(PEERS, &params, &patch).await.map(drop)
        };
        match result {
            Ok(()) => {
                self.patched.insert(subject, Instant::now());
                true
            }
            // It changed or went meanwhile: the watch brings what it is now.
            Err(kube::Error::Api(status)) if status.code == 409 || status.code == 404 => false,
            Err(error) => {
                self.say("patch", format!("cannot change {subject}: {}", brief(&error)));
                false
            }
        }
    }

    /// A warning, once.
    fn say(&mut self, subject: &'static str, text: String) {
        if self.said.get(subject) != Some(&text) {
            tracing::warn!("webhook: {text}");
            self.said.insert(subject, text);
        }
    }
}

/// An object with a field of ours.
struct Target {
    subject: &'static str,
    found: Found,
    /// The field as it is, and as it should be.
    now: Value,
    wanted: Value,
    patch: Value,
    undo: Value,
}

/// Nobody here reads them, and they are most of the object.
fn without_schemas(crd: &mut CustomResourceDefinition) {
    for version in &mut crd.spec.versions {
        version.schema = None;
    }
}
