//! A pod's volumes as directories of the lab: written once, when the pod starts. (A real kubelet also refreshes
//! them when the ConfigMap or Secret changes; the lab's does not.)

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{
    ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, Secret, ServiceAccount, ServiceAccountTokenProjection,
    Volume, VolumeProjection,
};
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt as _};

use super::{PodAddresses, env};

/// A token outlives any lab.
const TOKEN_SECONDS: i64 = 24 * 3600;

type Files = BTreeMap<String, Vec<u8>>;

/// Writes every volume below `dir` and returns where each is.
///
/// # Errors
/// A ConfigMap or Secret that is missing and not optional, or a kind of volume that the lab's kubelet does not
/// know: the pod waits with this sentence.
pub(super) async fn materialise(
    client: &Client,
    pod: &Pod,
    addresses: &PodAddresses,
    dir: &Path,
) -> Result<BTreeMap<String, PathBuf>> {
    let mut out = BTreeMap::new();
    for volume in pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()) {
        let files = files_of(client, pod, volume, addresses)
            .await
            .with_context(|| format!("volume {}", volume.name))?;
        let path = dir.join(&volume.name);
        write(&path, &files)?;
        out.insert(volume.name.clone(), path);
    }
    Ok(out)
}

async fn files_of(client: &Client, pod: &Pod, volume: &Volume, addresses: &PodAddresses) -> Result<Files> {
    let namespace = pod.namespace().unwrap_or_default();
    if volume.empty_dir.is_some() {
        return Ok(Files::new());
    }
    if let Some(source) = &volume.config_map {
        let optional = source.optional.unwrap_or(false);
        return config_map(client, &namespace, &source.name, source.items.as_deref(), optional).await;
    }
    if let Some(source) = &volume.secret {
        let name = source.secret_name.clone().unwrap_or_default();
        return secret(client, &namespace, &name, source.items.as_deref(), source.optional.unwrap_or(false))
            .await;
    }
    if let Some(source) = &volume.downward_api {
        return downward(pod, source.items.as_deref().unwrap_or_default(), addresses);
    }
    if let Some(source) = &volume.projected {
        let mut files = Files::new();
        for projection in source.sources.iter().flatten() {
            files.extend(projected(client, pod, projection, addresses).await?);
        }
        return Ok(files);
    }
    bail!("this kind of volume is not known to the lab's kubelet")
}

async fn projected(
    client: &Client,
    pod: &Pod,
    projection: &VolumeProjection,
    addresses: &PodAddresses,
) -> Result<Files> {
    let namespace = pod.namespace().unwrap_or_default();
    if let Some(source) = &projection.config_map {
        let optional = source.optional.unwrap_or(false);
        return config_map(client, &namespace, &source.name, source.items.as_deref(), optional).await;
    }
    if let Some(source) = &projection.secret {
        let optional = source.optional.unwrap_or(false);
        return secret(client, &namespace, &source.name, source.items.as_deref(), optional).await;
    }
    if let Some(source) = &projection.downward_api {
        return downward(pod, source.items.as_deref().unwrap_or_default(), addresses);
    }
    if let Some(source) = &projection.service_account_token {
        return token(client, pod, source).await;
    }
    bail!("this kind of projection is not known to the lab's kubelet")
}

/// A token bound to the pod, as a kubelet asks for it.
async fn token(client: &Client, pod: &Pod, source: &ServiceAccountTokenProjection) -> Result<Files> {
    let account = pod.spec.as_ref().and_then(|s| s.service_account_name.clone()).unwrap_or("default".into());
    let request = TokenRequest {
        spec: TokenRequestSpec {
            audiences: source.audience.iter().cloned().collect(),
            expiration_seconds: Some(TOKEN_SECONDS),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Pod".into()),
                name: Some(pod.name_any()),
                uid: pod.uid(),
            }),
        },
        ..Default::default()
    };
    let accounts = Api::<ServiceAccount>::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    let answer = accounts.create_token_request(&account, &PostParams::default(), &request).await?;
    let token = answer.status.map(|s| s.token).unwrap_or_default();
    Ok(Files::from([(source.path.clone(), token.into_bytes())]))
}

async fn config_map(
    client: &Client,
    namespace: &str,
    name: &str,
    items: Option<&[KeyToPath]>,
    optional: bool,
) -> Result<Files> {
    match Api::<ConfigMap>::namespaced(client.clone(), namespace).get_opt(name).await? {
        Some(map) => {
            let text = map.data.into_iter().flatten().map(|(k, v)| (k, v.into_bytes()));
            let binary = map.binary_data.into_iter().flatten().map(|(k, v)| (k, v.0));
            Ok(select(text.chain(binary).collect(), items))
        }
        None if optional => Ok(Files::new()),
        None => bail!("ConfigMap {namespace}/{name} not found"),
    }
}

async fn secret(
    client: &Client,
    namespace: &str,
    name: &str,
    items: Option<&[KeyToPath]>,
    optional: bool,
) -> Result<Files> {
    match Api::<Secret>::namespaced(client.clone(), namespace).get_opt(name).await? {
        Some(secret) => {
            let all = secret.data.into_iter().flatten().map(|(k, v)| (k, v.0)).collect();
            Ok(select(all, items))
        }
        None if optional => Ok(Files::new()),
        None => bail!("Secret {namespace}/{name} not found"),
    }
}

fn select(all: Files, items: Option<&[KeyToPath]>) -> Files {
    match items {
        None | Some([]) => all,
        Some(items) => {
            items.iter().filter_map(|i| Some((i.path.clone(), all.get(&i.key)?.clone()))).collect()
        }
    }
}

fn downward(pod: &Pod, items: &[DownwardAPIVolumeFile], addresses: &PodAddresses) -> Result<Files> {
    let mut files = Files::new();
    for item in items {
        let Some(field) = &item.field_ref else { bail!("{}: only fieldRef is known", item.path) };
        files.insert(item.path.clone(), env::field_of(pod, field, addresses)?.into_bytes());
    }
    Ok(files)
}

/// Readable by any user of the pod: its processes may run as one that owns nothing here.
fn write(dir: &Path, files: &Files) -> Result<()> {
    std::fs::create_dir_all(dir)?;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o777))?;
    for (name, content) in files {
        let path = dir.join(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&path, content).with_context(|| format!("write {}", path.display()))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o444))?;
    }
    Ok(())
}
