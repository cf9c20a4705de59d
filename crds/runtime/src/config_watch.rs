//! The configuration of the cluster: seven kinds, the legacy ConfigMap and the peers' passwords, watched in one namespace,
//! and the last configuration that was good.

use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::ListParams;
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt};
use patina_crds::config::{self, Config, ConfigErrors, LegacyConfigMap, Notice, Resources, SecretView};
use patina_crds::keys;
use patina_crds::types::{
    AddressReservation, BFDProfile, BGPAdvertisement, BGPPeer, Community, IPAddressPool, L2Advertisement,
};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;

use crate::metrics::ConfigMetrics;
use crate::tasks::Tasks;
use crate::watch::{Watchable, Watched};

/// Type of the Secrets that `spec.passwordSecret` of a BGPPeer may name; no other Secret is read.
const BASIC_AUTH: &str = "kubernetes.io/basic-auth";
const PASSWORD: &str = "password";

/// Everything that a configuration is made of, kept up to date. Kinds whose CRD is not installed count as empty.
#[derive(Clone, Debug)]
pub struct ConfigWatch {
    namespace: String,
    pools: Watched<IPAddressPool>,
    l2_advertisements: Watched<L2Advertisement>,
    bgp_advertisements: Watched<BGPAdvertisement>,
    peers: Watched<BGPPeer>,
    bfd_profiles: Watched<BFDProfile>,
    communities: Watched<Community>,
    reservations: Watched<AddressReservation>,
    legacy: Watched<ConfigMap>,
    secrets: Watched<Secret>,
}

impl ConfigWatch {
    /// Starts the watches. `bell` rings after each change of any of them; `legacy_name` is the ConfigMap's name.
    pub fn start(
        client: &Client,
        namespace: &str,
        legacy_name: &str,
        bell: &Arc<Notify>,
        tasks: &mut Tasks,
    ) -> Self {
        let mut at = Starter { client, namespace, bell, tasks };
        let everything = watcher::Config::default;
        Self {
            namespace: namespace.to_owned(),
            pools: at.start(everything(), |pool: &mut IPAddressPool| pool.status = None),
            l2_advertisements: at.start(everything(), |_| ()),
            bgp_advertisements: at.start(everything(), |_| ()),
            peers: at.start(everything(), |_| ()),
            bfd_profiles: at.start(everything(), |_| ()),
            communities: at.start(everything(), |_| ()),
            reservations: at.start(everything(), |_| ()),
            legacy: at.start(everything().fields(&format!("metadata.name={legacy_name}")), |_| ()),
            secrets: at.start(everything().fields(&format!("type={BASIC_AUTH}")), |secret: &mut Secret| {
                if let Some(data) = secret.data.as_mut() {
                    data.retain(|key, _| key == PASSWORD);
                }
            }),
        }
    }

    /// Whether every kind is listed once, or known to be absent.
    #[must_use]
    pub fn synced(&self) -> bool {
        self.readiness().is_ok()
    }

    /// For [`crate::http::Health`].
    ///
    /// # Errors
    /// The kinds that are not there yet, and why.
    pub fn readiness(&self) -> Result<(), String> {
        let unready: Vec<_> = self
            .parts()
            .iter()
            .filter_map(|part| part.readiness().err().map(|why| format!("{}: {why}", part.kind())))
            .collect();
        if unready.is_empty() { Ok(()) } else { Err(unready.join("; ")) }
    }

    /// Grows with each change.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.parts().iter().map(|part| part.generation()).sum()
    }

    /// The objects as they are now, sorted by name.
    #[must_use]
    pub fn resources(&self) -> Resources {
        Resources {
            namespace: self.namespace.clone(),
            pools: sorted(&self.pools),
            l2_advertisements: sorted(&self.l2_advertisements),
            bgp_advertisements: sorted(&self.bgp_advertisements),
            peers: sorted(&self.peers),
            bfd_profiles: sorted(&self.bfd_profiles),
            communities: sorted(&self.communities),
            reservations: sorted(&self.reservations),
            legacy: self.legacy.state().first().map(|map| legacy_view(&self.namespace, map)),
            secrets: self.secrets.state().iter().map(|secret| (secret.name_any(), view(secret))).collect(),
        }
    }

    fn parts(&self) -> [&dyn Part; 9] {
        [
            &self.pools,
            &self.l2_advertisements,
            &self.bgp_advertisements,
            &self.peers,
            &self.bfd_profiles,
            &self.communities,
            &self.reservations,
            &self.legacy,
            &self.secrets,
        ]
    }
}

struct Starter<'a> {
    client: &'a Client,
    namespace: &'a str,
    bell: &'a Arc<Notify>,
    tasks: &'a mut Tasks,
}

impl Starter<'_> {
    fn start<K>(&mut self, scope: watcher::Config, prune: fn(&mut K)) -> Watched<K>
    where
        K: Watchable + kube::Resource<Scope = kube::core::NamespaceResourceScope> + DeserializeOwned,
    {
        let api = Api::namespaced(self.client.clone(), self.namespace);
        Watched::start(api, scope, prune, Arc::clone(self.bell), self.tasks)
    }
}

/// A watch of any kind.
trait Part {
    fn kind(&self) -> String;
    fn readiness(&self) -> Result<(), String>;
    fn generation(&self) -> u64;
}

impl<K: Watchable> Part for Watched<K> {
    fn kind(&self) -> String {
        K::kind(&()).into_owned()
    }
    fn readiness(&self) -> Result<(), String> {
        Watched::readiness(self)
    }
    fn generation(&self) -> u64 {
        Watched::generation(self)
    }
}

fn sorted<K: Watchable>(watched: &Watched<K>) -> Vec<K> {
    let mut objects = watched.state();
    objects.sort_by_key(|object| object.name_any());
    objects.iter().map(|object| K::clone(object)).collect()
}

fn legacy_view(namespace: &str, map: &ConfigMap) -> LegacyConfigMap {
    LegacyConfigMap {
        namespace: namespace.to_owned(),
        name: map.name_any(),
        data: map.data.as_ref().and_then(|data| data.get(keys::LEGACY_CONFIG)).cloned(),
    }
}

fn view(secret: &Secret) -> SecretView {
    let password = secret.data.as_ref().and_then(|data| data.get(PASSWORD));
    SecretView {
        type_: secret.type_.clone().unwrap_or_default(),
        password: password.and_then(|bytes| String::from_utf8(bytes.0.clone()).ok()),
    }
}

/// What [`ConfigKeeper::update`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing new.
    Same,
    /// A good configuration is in force that differs from before, or the errors are gone.
    Loaded,
    /// Refused, with errors that are new; the last good configuration stays in force.
    Refused,
}

/// The last good configuration, and what is wrong with the newest.
#[derive(Clone, Debug, Default)]
pub struct ConfigKeeper {
    config: Option<Arc<Config>>,
    errors: Option<ConfigErrors>,
    notices: Vec<Notice>,
    generation: Option<u64>,
}

impl ConfigKeeper {
    /// Nothing was loaded yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The configuration in force: the newest good one. `None` until the first; then nothing may be touched.
    #[must_use]
    pub fn config(&self) -> Option<&Arc<Config>> {
        self.config.as_ref()
    }

    /// Everything that is wrong with the newest one, if it was refused.
    #[must_use]
    pub fn errors(&self) -> Option<&ConfigErrors> {
        self.errors.as_ref()
    }

    /// What its author should know though it was loaded.
    #[must_use]
    pub fn notices(&self) -> &[Notice] {
        &self.notices
    }

    /// Looks at `watch` if it changed since the last call. Before it is synced nothing happens: half a configuration
    /// would release what the other half holds.
    pub fn refresh(&mut self, watch: &ConfigWatch) -> Change {
        let generation = watch.generation();
        if self.generation == Some(generation) || !watch.synced() {
            return Change::Same;
        }
        self.generation = Some(generation);
        self.update(&watch.resources())
    }

    /// Builds a configuration and keeps it if it is good; logs what changed.
    pub fn update(&mut self, resources: &Resources) -> Change {
        match config::build(resources) {
            Ok(loaded) => {
                let same = self.errors.is_none()
                    && self.notices == loaded.notices
                    && self.config.as_deref() == Some(&loaded.config);
                if same {
                    return Change::Same;
                }
                tracing::info!(
                    pools = loaded.config.pools.len(),
                    l2_advertisements = loaded.config.l2_advertisements.len(),
                    bgp_advertisements = loaded.config.bgp_advertisements.len(),
                    peers = loaded.config.peers.len(),
                    "configuration loaded"
                );
                for notice in &loaded.notices {
                    tracing::warn!(object = %notice.object, "{}", notice.message);
                }
                self.config = Some(Arc::new(loaded.config));
                self.errors = None;
                self.notices = loaded.notices;
                Change::Loaded
            }
            Err(errors) if self.errors.as_ref() == Some(&errors) => Change::Same,
            Err(errors) => {
                for error in &errors.0 {
                    tracing::error!(
                        object = %error.object,
                        field = error.field,
                        "configuration refused, the last good one stays in force: {}",
                        error.message
                    );
                }
                self.errors = Some(errors);
                Change::Refused
            }
        }
    }

    /// Shows the state in MetalLB's gauges.
    pub fn record(&self, metrics: &ConfigMetrics) {
        metrics.loaded.set(i64::from(self.config.is_some()));
        metrics.stale.set(i64::from(self.errors.is_some()));
    }
}

/// The objects as they are at this moment, for tools that look once. Kinds that are not installed are empty, and
/// passwords that may not be read are left out.
///
/// # Errors
/// Anything else that the API server answers.
pub async fn read_once(
    client: &Client,
    namespace: &str,
    legacy_name: &str,
) -> Result<Resources, kube::Error> {
    let secrets = match list(client, namespace, Some(format!("type={BASIC_AUTH}"))).await {
        Err(kube::Error::Api(status)) if status.code == 403 => Vec::new(),
        other => other?,
    };
    let legacy: Vec<ConfigMap> =
        list(client, namespace, Some(format!("metadata.name={legacy_name}"))).await?;
    Ok(Resources {
        namespace: namespace.to_owned(),
        pools: list(client, namespace, None).await?,
        l2_advertisements: list(client, namespace, None).await?,
        bgp_advertisements: list(client, namespace, None).await?,
        peers: list(client, namespace, None).await?,
        bfd_profiles: list(client, namespace, None).await?,
        communities: list(client, namespace, None).await?,
        reservations: list(client, namespace, None).await?,
        legacy: legacy.first().map(|map| legacy_view(namespace, map)),
        secrets: secrets.iter().map(|secret: &Secret| (secret.name_any(), view(secret))).collect(),
    })
}

async fn list<K>(client: &Client, namespace: &str, fields: Option<String>) -> Result<Vec<K>, kube::Error>
where
    K: Watchable + kube::Resource<Scope = kube::core::NamespaceResourceScope>,
{
    let params = ListParams { field_selector: fields, ..ListParams::default() };
    match Api::namespaced(client.clone(), namespace).list(&params).await {
        Ok(list) => Ok(list.items),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;

    use super::*;

    fn with_pool(addresses: &str) -> Resources {
        let mut pool = IPAddressPool::new("default", Default::default());
        pool.spec.addresses = vec![addresses.to_owned()];
        Resources { pools: vec![pool], ..Resources::default() }
    }

    #[test]
    fn a_bad_configuration_leaves_the_last_good_one_in_force() {
        let registry = Registry::new();
        let metrics = ConfigMetrics::register(&registry).unwrap();
        let mut keeper = ConfigKeeper::new();
        let gauges = |keeper: &ConfigKeeper| {
            keeper.record(&metrics);
            (metrics.loaded.get(), metrics.stale.get())
        };
        assert_eq!((keeper.config(), gauges(&keeper)), (None, (0, 0)));

        let (good, backwards) = (with_pool("192.0.2.0/28"), with_pool("192.0.2.9-192.0.2.1"));
        assert_eq!(keeper.update(&backwards), Change::Refused, "nothing good yet");
        assert_eq!((keeper.config(), gauges(&keeper)), (None, (0, 1)));
        assert_eq!(keeper.update(&good), Change::Loaded);
        assert_eq!(keeper.update(&good), Change::Same);
        let in_force = keeper.config().cloned().unwrap();

        assert_eq!(keeper.update(&backwards), Change::Refused);
        assert_eq!(keeper.update(&backwards), Change::Same, "said once");
        assert_eq!(keeper.config(), Some(&in_force));
        assert!(keeper.errors().is_some_and(|errors| errors.to_string().contains("default")));
        assert_eq!(gauges(&keeper), (1, 1));

        assert_eq!(keeper.update(&good), Change::Loaded, "the errors are gone");
        assert_eq!(gauges(&keeper), (1, 0));
    }
}
