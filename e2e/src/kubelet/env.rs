//! A container's environment and arguments: literal values, the downward API, keys of ConfigMaps and Secrets, and
//! `$(NAME)` in all of them.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVar, ObjectFieldSelector, Pod, Secret};
use kube::{Api, Client, ResourceExt as _};

use super::PodAddresses;

/// Environment of `container`, in the order of its manifest.
///
/// # Errors
/// A reference that names nothing (and is not optional), or a field that the lab's kubelet does not know: the pod
/// waits with this sentence.
pub(super) async fn environment(
    client: &Client,
    pod: &Pod,
    container: &Container,
    addresses: &PodAddresses,
) -> Result<Vec<(String, String)>> {
    let mut out: Vec<(String, String)> = Vec::new();
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    for var in container.env.iter().flatten() {
        let Some(value) = value_of(client, pod, var, addresses).await? else { continue };
        let value = expand(&value, &known);
        known.insert(var.name.clone(), value.clone());
        out.push((var.name.clone(), value));
    }
    Ok(out)
}

/// `$(NAME)` replaced where NAME is known, `$$(NAME)` taken literally (core/v1 Container.args).
#[must_use]
pub(super) fn expand(text: &str, known: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("$$") {
            out.push('$');
            rest = after;
            continue;
        }
        let reference = rest.strip_prefix("$(").and_then(|r| r.split_once(')'));
        match reference.and_then(|(name, after)| known.get(name).map(|v| (v, after))) {
            Some((value, after)) => {
                out.push_str(value);
                rest = after;
            }
            None => {
                out.push('$');
                rest = &rest[1..];
            }
        }
    }
    out + rest
}

async fn value_of(
    client: &Client,
    pod: &Pod,
    var: &EnvVar,
    addresses: &PodAddresses,
) -> Result<Option<String>> {
    let Some(source) = &var.value_from else { return Ok(Some(var.value.clone().unwrap_or_default())) };
    let namespace = pod.namespace().unwrap_or_default();
    if let Some(field) = &source.field_ref {
        return field_of(pod, field, addresses).map(Some).with_context(|| format!("env {}", var.name));
    }
    if let Some(key) = &source.config_map_key_ref {
        let map = Api::<ConfigMap>::namespaced(client.clone(), &namespace).get_opt(&key.name).await?;
        let value = map.and_then(|m| m.data).and_then(|mut d| d.remove(&key.key));
        return required(value, key.optional, "ConfigMap", &key.name, &key.key);
    }
    if let Some(key) = &source.secret_key_ref {
        let secret = Api::<Secret>::namespaced(client.clone(), &namespace).get_opt(&key.name).await?;
        let value = secret.and_then(|s| s.data).and_then(|mut d| d.remove(&key.key));
        let value = value.map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned());
        return required(value, key.optional, "Secret", &key.name, &key.key);
    }
    bail!("env {}: this kind of valueFrom is not known to the lab's kubelet", var.name)
}

fn required(
    value: Option<String>,
    optional: Option<bool>,
    kind: &str,
    name: &str,
    key: &str,
) -> Result<Option<String>> {
    if value.is_none() && !optional.unwrap_or(false) {
        bail!("{kind} {name} has no key {key}");
    }
    Ok(value)
}

/// The fields of the downward API that a pod of ours may ask for.
///
/// # Errors
/// A field that is not among them.
pub(super) fn field_of(pod: &Pod, field: &ObjectFieldSelector, addresses: &PodAddresses) -> Result<String> {
    let joined = |ips: &[std::net::IpAddr]| ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let first = |ips: &[std::net::IpAddr]| ips.first().map(ToString::to_string).unwrap_or_default();
    let spec = pod.spec.as_ref();
    let text = match field.field_path.as_str() {
        "metadata.name" => pod.name_any(),
        "metadata.namespace" => pod.namespace().unwrap_or_default(),
        "metadata.uid" => pod.uid().unwrap_or_default(),
        "spec.nodeName" => spec.and_then(|s| s.node_name.clone()).unwrap_or_default(),
        "spec.serviceAccountName" => spec.and_then(|s| s.service_account_name.clone()).unwrap_or_default(),
        "status.podIP" => first(&addresses.pod),
        "status.podIPs" => joined(&addresses.pod),
        "status.hostIP" => first(&addresses.host),
        "status.hostIPs" => joined(&addresses.host),
        path => match path.strip_prefix("metadata.").and_then(keyed) {
            Some(("labels", key)) => pod.labels().get(key).cloned().unwrap_or_default(),
            Some(("annotations", key)) => pod.annotations().get(key).cloned().unwrap_or_default(),
            _ => bail!("field {path} is not known to the lab's kubelet"),
        },
    };
    Ok(text)
}

/// `labels['app']` -> `(labels, app)`.
fn keyed(path: &str) -> Option<(&str, &str)> {
    let (map, key) = path.split_once("['")?;
    Some((map, key.strip_suffix("']")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_to_known_names_are_replaced_and_others_kept() {
        let known = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
        assert_eq!(expand("x$(A)y$(B)z$$(A)$", &known), "x1y$(B)z$(A)$");
    }

    #[test]
    fn a_label_is_found_by_its_key() {
        assert_eq!(keyed("labels['app.kubernetes.io/name']"), Some(("labels", "app.kubernetes.io/name")));
    }
}
