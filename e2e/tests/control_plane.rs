//! The control plane itself: everything else in this directory stands on it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failed expectation is a failed test

use k8s_openapi::api::core::v1::{ConfigMap, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::ListParams;
use patina_e2e::control_plane::{ControlPlane, Options};
use patina_e2e::wait::{self, Seen, secs};

#[tokio::test]
async fn it_starts_serves_kubectl_and_leaves_nothing() {
    let plane = ControlPlane::start(Options::default()).await.unwrap();
    assert!(plane.kubectl(&["version"]).await.unwrap().contains("Server Version: v1."));
    let dir = plane.run().path().to_path_buf();
    assert!(dir.is_dir());
    drop(plane);
    assert!(!dir.exists(), "{} is left", dir.display());
}

#[tokio::test]
async fn the_controllers_are_at_work() {
    let plane = ControlPlane::start(Options::default()).await.unwrap();
    plane.apply(SERVICE_WITH_A_POD).await.unwrap();
    let slices: Api<EndpointSlice> = Api::namespaced(plane.client(), "default");
    let of_web = ListParams::default().labels("kubernetes.io/service-name=web");
    wait::until("Service web has its EndpointSlices, one per family", secs(20), || async {
        let list = slices.list(&of_web).await?;
        Ok(Seen::when(list.items.len() == 2, list.items))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_service_account_has_the_rights_that_rbac_gives_it() {
    let plane = ControlPlane::start(Options::default()).await.unwrap();
    plane.apply(READER).await.unwrap();
    let client = plane.client_for("default", "reader").await.unwrap();
    let services: Api<Service> = Api::namespaced(client.clone(), "default");
    services.list(&ListParams::default()).await.unwrap();
    let config: Api<ConfigMap> = Api::namespaced(client, "default");
    let refused = config.list(&ListParams::default()).await.unwrap_err();
    assert!(matches!(&refused, kube::Error::Api(status) if status.code == 403), "{refused}");
}

#[tokio::test]
async fn objects_survive_the_crash_of_the_api_server() {
    let options = Options { controller_manager: false, ..Options::default() };
    let mut plane = ControlPlane::start(options).await.unwrap();
    plane.kubectl(&["create", "configmap", "kept", "--from-literal=a=b"]).await.unwrap();
    plane.stop_apiserver();
    assert!(plane.kubectl(&["get", "configmap", "kept"]).await.is_err());
    plane.start_apiserver().await.unwrap();
    plane.kubectl(&["get", "configmap", "kept"]).await.unwrap();
}

const SERVICE_WITH_A_POD: &str = r#"
apiVersion: v1
kind: Service
metadata: { name: web, namespace: default }
spec:
  ipFamilyPolicy: RequireDualStack
  selector: { app: web }
  ports: [{ port: 80 }]
---
apiVersion: v1
kind: Pod
metadata: { name: web-0, namespace: default, labels: { app: web } }
spec:
  containers: [{ name: web, image: web }]
"#;

const READER: &str = r#"
apiVersion: v1
kind: ServiceAccount
metadata: { name: reader, namespace: default }
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: { name: reader, namespace: default }
rules:
- { apiGroups: [""], resources: [services], verbs: [get, list, watch] }
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: { name: reader, namespace: default }
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader }
subjects: [{ kind: ServiceAccount, name: reader, namespace: default }]
"#;
