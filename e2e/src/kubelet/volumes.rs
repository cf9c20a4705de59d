//! A pod's volumes as directories of the lab. They follow their ConfigMaps and Secrets as a kubelet's do: the files are links
//! into a directory that one rename replaces, so that a reader sees all of the old or all of the new. (A real kubelet looks
//! once a minute; the lab's is told, so that tests need not wait.)

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{
    ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, Secret, ServiceAccount, ServiceAccountTokenProjection,
    Volume, VolumeProjection,
};
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt as _};
use tokio::sync::watch;

use super::{PodAddresses, env};

/// A token outlives any lab.
const TOKEN_SECONDS: i64 = 24 * 3600;

/// Changes that come together are read together.
const REST: Duration = Duration::from_millis(200);
/// The link to the directory that has the files now.
const DATA: &str = "..data";

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
        let path = dir.join(&volume.name);
        let files = files_of(client, pod, volume, addresses, &read(&path))
            .await
            .with_context(|| format!("volume {}", volume.name))?;
        write(&path, &files)?;
        out.insert(volume.name.clone(), path);
    }
    Ok(out)
}

/// Keeps the volumes of a running pod as the API has them; `changes` tells that a ConfigMap or a Secret changed. What
/// cannot be read stays as it was. Never returns.
pub(super) async fn follow(
    client: &Client,
    pod: &Pod,
    addresses: &PodAddresses,
    dir: &Path,
    mut changes: watch::Receiver<u64>,
) {
    let follows = |volume: &Volume| {
        volume.config_map.is_some() || volume.secret.is_some() || volume.projected.is_some()
    };
    if !pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()).any(follows) {
        return std::future::pending().await;
    }
    while changes.changed().await.is_ok() {
        tokio::time::sleep(REST).await;
        changes.borrow_and_update();
        if let Err(error) = materialise(client, pod, addresses, dir).await {
            tracing::info!("volumes of {} stay as they are: {error:#}", pod.name_any());
        }
    }
    std::future::pending().await
}

/// `old` are the files that are there: a token is asked for once.
async fn files_of(
    client: &Client,
    pod: &Pod,
    volume: &Volume,
    addresses: &PodAddresses,
    old: &Files,
) -> Result<Files> {
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
            files.extend(projected(client, pod, projection, addresses, old).await?);
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
    old: &Files,
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
        return match old.get(&source.path) {
            Some(token) => Ok(Files::from([(source.path.clone(), token.clone())])),
            None => token(client, pod, source).await,
        };
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
            select(text.chain(binary).collect(), items, optional)
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
            select(all, items, optional)
        }
        None if optional => Ok(Files::new()),
        None => bail!("Secret {namespace}/{name} not found"),
    }
}

/// Of a source that is not optional, each key that is asked for must be there (core/v1 `SecretVolumeSource.items`).
fn select(all: Files, items: Option<&[KeyToPath]>, optional: bool) -> Result<Files> {
    let Some(items) = items.filter(|items| !items.is_empty()) else { return Ok(all) };
    let mut files = Files::new();
    for item in items {
        match all.get(&item.key) {
            Some(content) => drop(files.insert(item.path.clone(), content.clone())),
            None if optional => {}
            None => bail!("key {} not found", item.key),
        }
    }
    Ok(files)
}

fn downward(pod: &Pod, items: &[DownwardAPIVolumeFile], addresses: &PodAddresses) -> Result<Files> {
    let mut files = Files::new();
    for item in items {
        let Some(field) = &item.field_ref else { bail!("{}: only fieldRef is known", item.path) };
        files.insert(item.path.clone(), env::field_of(pod, field, addresses)?.into_bytes());
    }
    Ok(files)
}

/// The files of a volume as they are.
fn read(dir: &Path) -> Files {
    let mut files = Files::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(dir.join(DATA).join(&folder)).into_iter().flatten().flatten() {
            let name = folder.join(entry.file_name());
            if entry.path().is_dir() {
                folders.push(name);
            } else if let Ok(content) = std::fs::read(entry.path()) {
                files.insert(name.to_string_lossy().into_owned(), content);
            }
        }
    }
    files
}

/// Makes the volume hold these files, by one rename. Readable by any user of the pod: its processes may run as one that
/// owns nothing here.
fn write(dir: &Path, files: &Files) -> Result<()> {
    let data = dir.join(DATA);
    let before = std::fs::read_link(&data).ok();
    if before.is_some() && read(dir) == *files {
        return Ok(());
    }
    std::fs::create_dir_all(dir)?;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o777))?;
    if files.is_empty() && before.is_none() {
        return Ok(()); // an emptyDir, or nothing yet
    }
    let number = before.iter().filter_map(|b| b.to_str()?.strip_prefix("..")?.parse::<u32>().ok()).next();
    let version = format!("..{}", number.map_or(1, |number| number + 1));
    for (name, content) in files {
        let path = dir.join(&version).join(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&path, content).with_context(|| format!("write {}", path.display()))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o444))?;
    }
    std::fs::create_dir_all(dir.join(&version))?;
    let next = dir.join("..data_tmp");
    let _left_over = std::fs::remove_file(&next);
    symlink(&version, &next)?;
    std::fs::rename(&next, &data)?;
    link(dir, files)?;
    if let Some(before) = before {
        std::fs::remove_dir_all(dir.join(before))?;
    }
    Ok(())
}

/// What a container sees: a link for each name, through [`DATA`].
fn link(dir: &Path, files: &Files) -> Result<()> {
    let first = |name: &str| name.split('/').next().unwrap_or_default().to_owned();
    let names: BTreeSet<String> = files.keys().map(|name| first(name)).collect();
    for entry in std::fs::read_dir(dir)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with("..") && !names.contains(&name) {
            std::fs::remove_file(entry.path())?;
        }
    }
    for name in names {
        if dir.join(&name).symlink_metadata().is_err() {
            symlink(Path::new(DATA).join(&name), dir.join(&name))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(all: &[(&str, &str)]) -> Files {
        all.iter().map(|(name, content)| ((*name).to_owned(), content.as_bytes().to_vec())).collect()
    }

    #[test]
    fn a_volume_changes_by_one_rename_and_keeps_no_old_files() {
        let dir = std::env::temp_dir().join(format!("patina-volume-{}", std::process::id()));
        let shown = |name: &str| std::fs::read_to_string(dir.join(name)).ok();
        write(&dir, &files(&[("secretkey", "one"), ("deep/er", "x")])).unwrap();
        assert_eq!((shown("secretkey").as_deref(), shown("deep/er").as_deref()), (Some("one"), Some("x")));
        let first = std::fs::read_link(dir.join(DATA)).unwrap();
        write(&dir, &files(&[("secretkey", "one"), ("deep/er", "x")])).unwrap();
        assert_eq!(std::fs::read_link(dir.join(DATA)).unwrap(), first, "nothing changed");

        let open = std::fs::canonicalize(dir.join("secretkey")).unwrap();
        write(&dir, &files(&[("secretkey", "two"), ("secretkey-previous", "one")])).unwrap();
        assert_eq!((shown("secretkey").as_deref(), shown("deep/er")), (Some("two"), None));
        assert_eq!(read(&dir), files(&[("secretkey", "two"), ("secretkey-previous", "one")]));
        assert!(!open.exists() && dir.join("deep").symlink_metadata().is_err());
        write(&dir, &Files::new()).unwrap();
        assert_eq!((shown("secretkey"), read(&dir)), (None, Files::new()));
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_key_that_is_asked_for_must_be_there_unless_it_is_optional() {
        let all = || files(&[("secretkey", "one")]);
        let item = |key: &str| [KeyToPath { key: key.into(), path: "file".into(), mode: None }];
        assert_eq!(select(all(), Some(&item("secretkey")), false).unwrap(), files(&[("file", "one")]));
        assert_eq!(select(all(), Some(&item("other")), true).unwrap(), Files::new());
        assert_eq!(
            select(all(), Some(&item("other")), false).unwrap_err().to_string(),
            "key other not found"
        );
        assert_eq!(select(all(), None, false).unwrap(), all());
    }
}
