//! What every daemon stands on, against a real API server: watches, the configuration, events.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failed expectation is a failed test

use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use kube::{Api, Resource};
use patina_e2e::control_plane::{ControlPlane, Options};
use patina_e2e::wait::{self, Seen, secs};
use patina_runtime::config_watch::{Change, ConfigKeeper, ConfigWatch};
use patina_runtime::events::{self, EventType, Events, Published};
use patina_runtime::tasks::Tasks;
use patina_runtime::{client, watch};
use tokio::sync::Notify;

async fn plane() -> ControlPlane {
    let options = Options { controller_manager: false, ..Options::default() };
    let plane = ControlPlane::start(options).await.unwrap();
    plane.apply("{apiVersion: v1, kind: Namespace, metadata: {name: metallb-system}}").await.unwrap();
    plane
}

#[tokio::test]
async fn the_configuration_is_followed_from_a_config_map_to_resources() {
    let plane = plane().await;
    plane.apply(LEGACY).await.unwrap();
    let client = client::connect(Some(&plane.admin_kubeconfig())).await.unwrap();
    let (mut tasks, bell) = (Tasks::new(), Arc::new(Notify::new()));
    let watched = ConfigWatch::start(&client, "metallb-system", "config", &bell, &mut tasks);
    let mut keeper = ConfigKeeper::new();
    let mut until = async |what: &str, done: fn(&ConfigKeeper) -> bool| {
        let wait = async {
            while !done(&keeper) {
                if keeper.refresh(&watched) == Change::Same {
                    bell.notified().await;
                }
            }
        };
        let waited = tokio::time::timeout(secs(30), wait).await;
        assert!(waited.is_ok(), "never: {what}; {keeper:?} {watched:?}");
    };
    until("without any CRD the ConfigMap is the configuration", |keeper| {
        keeper.config().is_some_and(|config| config.pools.contains_key("legacy"))
    })
    .await;

    plane.apply_crds().await.unwrap();
    plane.apply(POOL).await.unwrap();
    until("a kind that was installed later is seen", |keeper| {
        keeper.config().is_some_and(|config| config.pools.len() == 2)
    })
    .await;

    plane.apply(&POOL.replace("192.0.2.0/28", "172.25.7.250-172.25.7.251")).await.unwrap();
    until("a bad pool is refused and the last good configuration stays", |keeper| {
        keeper.errors().is_some() && keeper.config().is_some_and(|config| config.pools.len() == 2)
    })
    .await;

    plane.kubectl(&["delete", "ipaddresspool", "-n", "metallb-system", "resource"]).await.unwrap();
    until("what remains is good", |keeper| {
        keeper.errors().is_none() && keeper.config().is_some_and(|config| config.pools.len() == 1)
    })
    .await;
}

#[tokio::test]
async fn a_watch_survives_the_api_server() {
    let mut plane = plane().await;
    let client = client::connect(Some(&plane.admin_kubeconfig())).await.unwrap();
    let (mut tasks, bell) = (Tasks::new(), Arc::new(Notify::new()));
    let api: Api<Service> = Api::all(client);
    let watched = watch::Watched::start(api, Default::default(), |_| (), bell, &mut tasks);
    wait::until("the first list", secs(10), || async {
        Ok(Seen::when(watched.synced(), watched.last_error()))
    })
    .await
    .unwrap();
    assert!(watched.get("default", "kubernetes").is_some());

    plane.stop_apiserver();
    wait::until("the loss is seen", secs(20), || async {
        Ok(Seen::when(watched.last_error().is_some(), watched.generation()))
    })
    .await
    .unwrap();
    assert!(watched.get("default", "kubernetes").is_some(), "what is known stays");

    plane.start_apiserver().await.unwrap();
    plane.apply(SERVICE).await.unwrap();
    wait::until("a new Service is seen", secs(30), || async {
        Ok(Seen::when(watched.get("default", "web").is_some(), watched.last_error()))
    })
    .await
    .unwrap();
    assert_eq!(watched.last_error(), None);
}

#[tokio::test]
async fn an_event_is_stored_once_as_users_look_for_it() {
    let plane = plane().await;
    plane.apply(SERVICE).await.unwrap();
    let client = client::connect(Some(&plane.admin_kubeconfig())).await.unwrap();
    let service =
        Api::<Service>::namespaced(client.clone(), "default").get("web").await.unwrap().object_ref(&());
    let mut tasks = Tasks::new();
    let events = Events::start(client, events::CONTROLLER, "patina-controller-0", &mut tasks);
    let say = |message: &str| events.publish(&service, EventType::Warning, "AllocationFailed", message);
    assert_eq!(say("no available IPs"), Published::Queued);
    assert_eq!(say("no available IPs"), Published::Same);
    assert_eq!(say("pool is full"), Published::Queued);
    let columns = "-o=custom-columns=F:.reportingComponent,I:.reportingInstance,T:.type,R:.reason,M:.message";
    // The API server itself may say something about a new Service (its repair of cluster addresses).
    let selector = "--field-selector=involvedObject.name=web,reason=AllocationFailed";
    let list = wait::until("both events are stored", secs(20), || async {
        let list = plane.kubectl(&["get", "events", "--no-headers", selector, columns]).await?;
        Ok(Seen::when(list.lines().count() == 2, list))
    })
    .await
    .unwrap();
    for line in list.lines() {
        for part in ["metallb-controller", "patina-controller-0", "Warning", "AllocationFailed"] {
            assert!(line.contains(part), "{part} is not in {line}");
        }
    }
    let described = plane.kubectl(&["describe", "service", "web"]).await.unwrap();
    assert!(described.contains("metallb-controller") && described.contains("pool is full"), "{described}");
}

const LEGACY: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {namespace: metallb-system, name: config}
data:
  config: |
    address-pools:
    - {name: legacy, protocol: layer2, addresses: [172.25.7.100-172.25.7.250]}
"#;

const POOL: &str = r#"
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {namespace: metallb-system, name: resource}
spec: {addresses: [192.0.2.0/28]}
"#;

const SERVICE: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: LoadBalancer, allocateLoadBalancerNodePorts: false, ports: [{port: 80}]}
"#;
