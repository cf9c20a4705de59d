//! Kubeconfig files, written as JSON (which is YAML): nothing to quote wrongly.

use std::net::SocketAddr;

use kube::config::Kubeconfig;
use serde_json::{Value, json};

use super::pki::Identity;

/// How a user proves who they are.
pub(super) enum Proof {
    Certificate(Identity),
    Token(String),
}

/// The text of a kubeconfig for one user of one cluster.
pub(super) fn text(server: SocketAddr, ca_pem: &str, user: &str, proof: &Proof) -> String {
    let proof: Value = match proof {
        Proof::Certificate(identity) => json!({
            "client-certificate-data": base64(identity.certificate.as_bytes()),
            "client-key-data": base64(identity.key.as_bytes()),
        }),
        Proof::Token(token) => json!({ "token": token }),
    };
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "lab", "cluster": {
            "server": format!("https://{server}"),
            "certificate-authority-data": base64(ca_pem.as_bytes()),
        }}],
        "users": [{ "name": user, "user": proof }],
        "contexts": [{ "name": "lab", "context": { "cluster": "lab", "user": user } }],
        "current-context": "lab",
    });
    format!("{config:#}\n")
}

/// Reads such a text.
pub(super) fn parse(text: &str) -> Result<Kubeconfig, kube::config::KubeconfigError> {
    Kubeconfig::from_yaml(text)
}

fn base64(bytes: &[u8]) -> String {
    // k8s-openapi's ByteString is base64 in JSON; no need for one more crate.
    match serde_json::to_value(k8s_openapi::ByteString(bytes.to_vec())) {
        Ok(Value::String(text)) => text,
        other => unreachable!("a ByteString is a string in JSON, not {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kube_reads_what_we_write() {
        let text = text(([127, 0, 0, 1], 6443).into(), "CA", "admin", &Proof::Token("t".to_owned()));
        let config = parse(&text).unwrap();
        let cluster = config.clusters[0].cluster.as_ref().unwrap();
        assert_eq!(cluster.server.as_deref(), Some("https://127.0.0.1:6443"));
        assert_eq!(cluster.certificate_authority_data.as_deref(), Some("Q0E="));
    }
}
