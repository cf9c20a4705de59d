//! What the API server is told: `webhooks` of the ValidatingWebhookConfiguration, and `spec.conversion` of the BGPPeers' CRD.
//!
//! Both objects are somebody else's (the chart's, a GitOps tool's); these fields are ours alone. They are written by a merge
//! patch under a field manager of our own, never by an apply, which would make an object that is not there, and leave
//! entries that another one wrote.

use k8s_openapi::ByteString;
use serde_json::{Value, json};

use super::admission::KINDS;

/// Name of the ValidatingWebhookConfiguration.
pub(crate) const SHELL: &str = "metallb-webhook-configuration";
/// The CRD whose versions are converted.
pub(crate) const PEERS: &str = "bgppeers.metallb.io";
/// Who we are in managedFields.
pub(crate) const MANAGER: &str = "patina-webhook";

/// Longer than an answer takes, shorter than a person waits.
const TIMEOUT_SECONDS: u32 = 5;

/// Where the API server finds us and how it knows us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Door {
    pub(crate) namespace: String,
    pub(crate) service: String,
    /// PEM; empty: the API server's own trust.
    pub(crate) bundle: String,
    /// Fail or Ignore.
    pub(crate) policy: String,
}

/// What is in such a field now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nothing that calls anybody.
    Nothing,
    /// It calls our Service.
    Ours,
    /// It calls somebody else: here is who.
    Foreign(String),
}

impl Door {
    fn client_config(&self, path: &str) -> Value {
        let service = json!({"namespace": self.namespace, "name": self.service, "path": path, "port": 443});
        if self.bundle.is_empty() {
            json!({"service": service})
        } else {
            json!({"service": service, "caBundle": ByteString(self.bundle.clone().into_bytes())})
        }
    }

    /// `webhooks`, with every default written out.
    pub(crate) fn webhooks(&self) -> Value {
        let one = |(kind, path): &(&str, &str)| {
            let resource = match *kind {
                "Community" => "communities".to_owned(),
                kind => format!("{}s", kind.to_lowercase()),
            };
            let group = if *kind == "AddressReservation" { "patina.io" } else { "metallb.io" };
            // matchPolicy Equivalent: a peer of v1beta1 is asked about as one of v1beta2.
            let version = if *kind == "BGPPeer" { "v1beta2" } else { "v1beta1" };
            let operations: &[&str] =
                if *kind == "BFDProfile" { &["CREATE", "UPDATE", "DELETE"] } else { &["CREATE", "UPDATE"] };
            json!({
                "name": format!("{}validationwebhook.{group}", kind.to_lowercase()),
                "clientConfig": self.client_config(path),
                "rules": [{
                    "apiGroups": [group], "apiVersions": [version], "resources": [resource],
                    "operations": operations, "scope": "Namespaced",
                }],
                "failurePolicy": self.policy,
                "matchPolicy": "Equivalent",
                "sideEffects": "None",
                "timeoutSeconds": TIMEOUT_SECONDS,
                "admissionReviewVersions": ["v1"],
            })
        };
        KINDS.iter().map(one).collect()
    }

    /// `spec.conversion`.
    pub(crate) fn conversion(&self) -> Value {
        json!({
            "strategy": "Webhook",
            "webhook": {
                "clientConfig": self.client_config("/convert"),
                "conversionReviewVersions": ["v1"],
            },
        })
    }

    /// Whom the clientConfigs in a field call.
    pub(crate) fn whose<'a>(&self, configs: impl Iterator<Item = &'a Value>) -> Found {
        let mut found = Found::Nothing;
        for config in configs {
            let text = |key: &str| {
                config.pointer(&format!("/service/{key}")).and_then(Value::as_str).unwrap_or_default()
            };
            if text("namespace") != self.namespace || text("name") != self.service {
                let url = config.get("url").and_then(Value::as_str).map(str::to_owned);
                return Found::Foreign(
                    url.unwrap_or_else(|| format!("{}/{}", text("namespace"), text("name"))),
                );
            }
            found = Found::Ours;
        }
        found
    }
}

/// Whether everything that `wanted` says is so in `found`; what else the API server filled in does not matter.
pub(crate) fn says(found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (Value::Object(found), Value::Object(wanted)) => {
            wanted.iter().all(|(key, value)| found.get(key).is_some_and(|found| says(found, value)))
        }
        (Value::Array(found), Value::Array(wanted)) => {
            found.len() == wanted.len() && found.iter().zip(wanted).all(|(found, wanted)| says(found, wanted))
        }
        _ => found == wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn door() -> Door {
        Door {
            namespace: "metallb-system".to_owned(),
            service: "metallb-webhook-service".to_owned(),
            bundle: "PEM".to_owned(),
            policy: "Fail".to_owned(),
        }
    }

    #[test]
    fn every_kind_has_an_entry_with_the_names_of_metallb() {
        let hooks = door().webhooks();
        let all: Vec<String> = hooks
            .as_array()
            .unwrap()
            .iter()
            .map(|hook| {
                let text = |at: &str| hook.pointer(at).unwrap().as_str().unwrap().to_owned();
                format!(
                    "{} {} {}",
                    text("/name"),
                    text("/clientConfig/service/path"),
                    text("/rules/0/resources/0")
                )
            })
            .collect();
        assert_eq!(all.len(), 7);
        for wanted in [
            "bgppeervalidationwebhook.metallb.io /validate-metallb-io-v1beta2-bgppeer bgppeers",
            "communityvalidationwebhook.metallb.io /validate-metallb-io-v1beta1-community communities",
            "addressreservationvalidationwebhook.patina.io /validate-patina-io-v1beta1-addressreservation addressreservations",
        ] {
            assert!(all.iter().any(|one| one == wanted), "{wanted} is not in {all:#?}");
        }
        assert_eq!(hooks[0]["clientConfig"]["caBundle"], "UEVN");
    }

    #[test]
    fn it_is_known_whose_a_field_is() {
        let conversion = door().conversion();
        let config = |conversion: &Value| conversion.pointer("/webhook/clientConfig").cloned();
        assert_eq!(door().whose([].iter()), Found::Nothing);
        assert_eq!(door().whose(config(&conversion).iter()), Found::Ours);
        let other = Door { namespace: "other".to_owned(), ..door() }.conversion();
        assert_eq!(
            door().whose(config(&other).iter()),
            Found::Foreign("other/metallb-webhook-service".to_owned())
        );
        assert_eq!(
            door().whose([json!({"url": "https://a"})].iter()),
            Found::Foreign("https://a".to_owned())
        );
    }

    #[test]
    fn defaults_of_the_api_server_are_no_difference() {
        let wanted = json!([{"a": 1, "b": {"c": [1, 2]}}]);
        assert!(says(&json!([{"a": 1, "b": {"c": [1, 2], "d": {}}, "e": "x"}]), &wanted));
        assert!(!says(&json!([{"a": 1, "b": {"c": [1]}}]), &wanted));
        assert!(!says(&json!([]), &wanted) && !says(&Value::Null, &wanted));
    }
}
