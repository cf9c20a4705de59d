//! The Secret with the key of the speakers' membership. The leader makes it when it is missing, and fills it in when it is
//! there without a key; a key that is there is never changed. Speakers wait for it: they mount it.
//!
//! Our chart makes an empty Secret, and lets the controller change just that one: whoever may create Secrets can have a token
//! of any ServiceAccount of the namespace (docs/decisions/0013-webhooks-fill-shells.md). With manifests that allow it, as
//! MetalLB's do, a Secret that is missing is made, and belongs to the controller's Deployment, if its name is known.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::watcher;
use kube::{Api, Client, Resource as _, ResourceExt as _};
use patina_runtime::client::brief;
use patina_runtime::tasks::Tasks;
use patina_runtime::watch::Watched;
use ring::rand::{SecureRandom as _, SystemRandom};
use serde_json::json;
use tokio::sync::Notify;

use crate::leader::Standing;

/// The key in the Secret, as MetalLB has it.
const KEY: &str = "secretkey";
/// Of the key, before it becomes text.
const RANDOM_BYTES: usize = 32;
/// Leadership changes without a bell, and a failed request is tried again.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// What is to be made.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    /// Name of the Secret.
    pub(crate) secret: String,
    /// Name of the Deployment that shall own it.
    pub(crate) deployment: Option<String>,
}

/// Starts the task.
pub(crate) fn start(client: &Client, namespace: &str, wish: Wish, standing: Standing, tasks: &mut Tasks) {
    let bell = Arc::new(Notify::new());
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let scope = watcher::Config::default().fields(&format!("metadata.name={}", wish.secret));
    let found = Watched::start(api.clone(), scope, forget_key, Arc::clone(&bell), tasks);
    let deployments = Api::namespaced(client.clone(), namespace);
    let maker = Maker { api, deployments, namespace: namespace.to_owned(), wish, found, said: None };
    tasks.spawn("memberlist", maker.run(bell, standing));
}

/// That there is a key is all that we keep of it.
fn forget_key(secret: &mut Secret) {
    if !has_key(secret) {
        secret.data = None;
    }
    secret.data.iter_mut().for_each(|data| data.retain(|name, _| name == KEY));
    secret.data.iter_mut().flat_map(BTreeMap::values_mut).for_each(|value| value.0 = b"hidden".to_vec());
}

fn has_key(secret: &Secret) -> bool {
    secret.data.as_ref().and_then(|data| data.get(KEY)).is_some_and(|key| !key.0.is_empty())
}

struct Maker {
    api: Api<Secret>,
    deployments: Api<Deployment>,
    namespace: String,
    wish: Wish,
    found: Watched<Secret>,
    /// The last failure that was logged.
    said: Option<String>,
}

impl Maker {
    async fn run(mut self, bell: Arc<Notify>, standing: Standing) {
        loop {
            tokio::select! {
                () = bell.notified() => {}
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
            let found = self.found.get(&self.namespace, &self.wish.secret);
            if found.as_ref().is_some_and(|secret| has_key(secret))
                || !self.found.synced()
                || !standing.leads()
            {
                continue;
            }
            let work = async {
                match &found {
                    None => self.make().await,
                    Some(secret) => self.fill(secret).await,
                }
            };
            let failure = match tokio::time::timeout(REQUEST_TIMEOUT, work).await {
                Ok(Ok(())) => None,
                Ok(Err(why)) => Some(why),
                Err(_) => Some(format!("no answer within {REQUEST_TIMEOUT:?}")),
            };
            if let Some(why) = failure.as_ref().filter(|_| failure != self.said) {
                let (what, name) = (if found.is_none() { "make" } else { "fill in" }, &self.wish.secret);
                tracing::warn!("cannot {what} the Secret {name} with the speakers' key: {why}; will retry");
            }
            self.said = failure;
        }
    }

    async fn make(&self) -> Result<(), String> {
        let owner_references = self.owner().await?;
        let metadata =
            ObjectMeta { name: Some(self.wish.secret.clone()), owner_references, ..ObjectMeta::default() };
        let data = Some(BTreeMap::from([(KEY.to_owned(), new_key()?)]));
        let secret = Secret { metadata, data, ..Secret::default() };
        self.done(self.api.create(&PostParams::default(), &secret).await)
    }

    /// Only the version that we saw: a key that somebody wrote meanwhile stays.
    async fn fill(&self, secret: &Secret) -> Result<(), String> {
        let body = json!({
            "metadata": { "uid": secret.uid(), "resourceVersion": secret.resource_version() },
            "data": { KEY: new_key()? },
        });
        self.done(self.api.patch(&self.wish.secret, &PatchParams::default(), &Patch::Merge(body)).await)
    }

    fn done(&self, result: kube::Result<Secret>) -> Result<(), String> {
        match result {
            Ok(_) => {
                tracing::info!("a new key for the speakers is in the Secret {}", self.wish.secret);
                Ok(())
            }
            // Somebody was faster, or it went: the watch will show it.
            Err(kube::Error::Api(status)) if status.code == 409 || status.code == 404 => Ok(()),
            Err(error) => Err(brief(&error)),
        }
    }

    /// A Deployment that cannot be seen owns nothing: the Secret is made all the same, for speakers wait for it.
    async fn owner(&self) -> Result<Option<Vec<OwnerReference>>, String> {
        let Some(name) = &self.wish.deployment else { return Ok(None) };
        match self.deployments.get_opt(name).await {
            Ok(Some(deployment)) => Ok(Some(vec![OwnerReference {
                api_version: Deployment::api_version(&()).into_owned(),
                kind: Deployment::kind(&()).into_owned(),
                name: name.clone(),
                uid: deployment.uid().unwrap_or_default(),
                ..OwnerReference::default()
            }])),
            Ok(None) => Ok(None),
            Err(kube::Error::Api(status)) if status.code == 403 => Ok(None),
            Err(error) => Err(brief(&error)),
        }
    }
}

/// Random bytes as text: manifests and shells carry it unharmed.
fn new_key() -> Result<ByteString, String> {
    let mut bytes = [0; RANDOM_BYTES];
    SystemRandom::new().fill(&mut bytes).map_err(|_| "the system gives no random numbers".to_owned())?;
    // In base64, as the API writes bytes; the API will do the same to this text once more.
    match serde_json::to_value(ByteString(bytes.to_vec())) {
        Ok(serde_json::Value::String(text)) => Ok(ByteString(text.into_bytes())),
        _ => Err("bytes have no text".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_key_is_text_of_32_random_bytes_and_never_the_same() {
        let (one, other) = (new_key().unwrap(), new_key().unwrap());
        assert_eq!(one.0.len(), 44);
        assert!(one.0.iter().all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(b)), "{one:?}");
        assert_ne!(one, other);
    }

    #[test]
    fn of_a_secret_we_keep_whether_it_has_a_key() {
        let secret = |data: &[(&str, &[u8])]| {
            let data = data.iter().map(|(name, value)| ((*name).to_owned(), ByteString(value.to_vec())));
            let mut secret = Secret { data: Some(data.collect()), ..Secret::default() };
            forget_key(&mut secret);
            secret
        };
        let kept = secret(&[(KEY, b"0123456789abcdef"), ("secretkey-previous", b"fedcba9876543210")]);
        assert!(
            has_key(&kept)
                && !format!("{kept:?}").contains("0123")
                && !format!("{kept:?}").contains("previous")
        );
        assert!(
            !has_key(&secret(&[]))
                && !has_key(&secret(&[(KEY, b"")]))
                && !has_key(&secret(&[("other", b"x")]))
        );
    }
}
