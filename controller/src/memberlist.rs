//! The Secret with the key of the speakers' membership: made by the leader when it is missing, never changed.
//!
//! It belongs to the controller's Deployment, if that is known, and goes with it. Speakers wait for it (they mount it).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{ObjectMeta, PostParams};
use kube::runtime::watcher;
use kube::{Api, Client, Resource as _, ResourceExt as _};
use patina_runtime::client::brief;
use patina_runtime::tasks::Tasks;
use patina_runtime::watch::Watched;
use ring::rand::{SecureRandom as _, SystemRandom};
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
    // That it is there is all that is kept of it.
    let found = Watched::start(api.clone(), scope, forget, Arc::clone(&bell), tasks);
    let deployments = Api::namespaced(client.clone(), namespace);
    let maker = Maker { api, deployments, namespace: namespace.to_owned(), wish, found, said: None };
    tasks.spawn("memberlist", maker.run(bell, standing));
}

fn forget(secret: &mut Secret) {
    secret.data = None;
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
            let is_there = self.found.get(&self.namespace, &self.wish.secret).is_some();
            if is_there || !self.found.synced() || !standing.leads() {
                continue;
            }
            let result = tokio::time::timeout(REQUEST_TIMEOUT, self.make()).await;
            let failure = match result {
                Ok(Ok(())) => None,
                Ok(Err(why)) => Some(why),
                Err(_) => Some(format!("no answer within {REQUEST_TIMEOUT:?}")),
            };
            if let Some(why) = failure.as_ref().filter(|_| failure != self.said) {
                tracing::warn!("cannot make the Secret {} for the speakers: {why}; will retry", self.wish.secret);
            }
            self.said = failure;
        }
    }

    async fn make(&self) -> Result<(), String> {
        let owner = self.owner().await?;
        let metadata =
            ObjectMeta { name: Some(self.wish.secret.clone()), owner_references: owner, ..ObjectMeta::default() };
        let data = Some(BTreeMap::from([(KEY.to_owned(), new_key()?)]));
        let secret = Secret { metadata, data, ..Secret::default() };
        match self.api.create(&PostParams::default(), &secret).await {
            Ok(_) => {
                tracing::info!("made the Secret {} with a new key for the speakers", self.wish.secret);
                Ok(())
            }
            // Somebody was faster; the watch will show it.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            Err(error) => Err(brief(&error)),
        }
    }

    /// A Deployment that is not there owns nothing: the Secret is made all the same, for speakers wait for it.
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
            Err(kube::Error::Api(status)) if status.code == 403 => {
                tracing::debug!("may not read the Deployment {name}, so that the Secret has no owner");
                Ok(None)
            }
            Err(error) => Err(brief(&error)),
        }
    }
}

/// Random bytes as text: manifests and shells carry it unharmed.
fn new_key() -> Result<ByteString, String> {
    let mut bytes = [0; RANDOM_BYTES];
    SystemRandom::new().fill(&mut bytes).map_err(|_| "the system gives no random numbers".to_owned())?;
    // As the API's own encoding has it: base64.
    match serde_json::to_value(ByteString(bytes.to_vec())) {
        Ok(serde_json::Value::String(text)) => Ok(ByteString(text.into_bytes())),
        _ => Err("base64".to_owned()),
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
}
