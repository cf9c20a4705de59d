//! A control plane with our controller beside it, and questions about Services.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io::{Read as _, Write as _};
use std::path::Path;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::events::v1::Event;
use kube::api::{DynamicObject, ListParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client, ResourceExt};
use patina_e2e::binaries;
use patina_e2e::control_plane::{ControlPlane, Options};
use patina_e2e::ports::Port;
use patina_e2e::process::{Process, Spec};
use patina_e2e::wait::{self, Seen, secs};

pub(crate) const NAMESPACE: &str = "metallb-system";
/// Long enough for a machine that does ten things at once.
pub(crate) const SOON: std::time::Duration = secs(20);

/// A control plane (without controller-manager: nobody else writes Services) with our CRDs.
pub(crate) struct Stage {
    pub(crate) plane: ControlPlane,
}

/// A running controller.
pub(crate) struct Controller {
    pub(crate) process: Process,
    metrics: Port,
    health: Port,
}

impl Stage {
    pub(crate) async fn with_crds() -> Stage {
        let stage = Stage::bare().await;
        stage.plane.apply_crds().await.unwrap();
        stage
    }

    /// As a cluster that has only the ConfigMap of old times.
    pub(crate) async fn bare() -> Stage {
        Stage::with_flags(&[]).await
    }

    /// With these flags for the API server, and without our CRDs.
    pub(crate) async fn with_flags(flags: &[&str]) -> Stage {
        let apiserver_flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let options = Options { controller_manager: false, apiserver_flags, ..Options::default() };
        let plane = ControlPlane::start(options).await.unwrap();
        plane.kubectl(&["create", "namespace", NAMESPACE]).await.unwrap();
        Stage { plane }
    }

    pub(crate) fn controller(&self, name: &str, args: &[&str]) -> Controller {
        self.controller_as(name, args, &self.plane.admin_kubeconfig())
    }

    /// With the rights of that kubeconfig.
    pub(crate) fn controller_as(&self, name: &str, args: &[&str], kubeconfig: &Path) -> Controller {
        let program = binaries::path("patina-controller").unwrap();
        let (metrics, health) = (Port::reserve().unwrap(), Port::reserve().unwrap());
        let process = Spec::new(name, program)
            .arg(format!("--port={}", metrics.number()))
            .arg(format!("--health-probe-port={}", health.number()))
            // Its port is one for all (tests/webhook.rs has it in namespaces).
            .args(["--namespace", NAMESPACE, "--webhook-mode=disabled"])
            .args(["--log-level=debug", "--log-format=text"])
            .args(args.iter().copied())
            .env("KUBECONFIG", kubeconfig)
            .env("METALLB_POD_NAME", name)
            .spawn(self.plane.run())
            .unwrap();
        Controller { process, metrics, health }
    }

    pub(crate) fn client(&self) -> Client {
        self.plane.client()
    }

    pub(crate) async fn apply(&self, yaml: &str) {
        self.plane.apply(yaml).await.unwrap();
    }

    /// A pool and an L2Advertisement for everything.
    pub(crate) async fn pool(&self, name: &str, addresses: &[&str], more: &str) {
        let list: String = addresses.iter().map(|a| format!("\n  - \"{a}\"")).collect();
        self.apply(&format!(
            "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {{ name: {name}, namespace: {NAMESPACE} }}\n\
             spec:\n  addresses:{list}\n{more}\n---\n\
             apiVersion: metallb.io/v1beta1\nkind: L2Advertisement\nmetadata: {{ name: all, namespace: {NAMESPACE} }}\n"
        ))
        .await;
    }

    /// A LoadBalancer in `default`. `meta` and `spec` are further YAML flow entries: `annotations: {..}`.
    pub(crate) async fn service(&self, name: &str, meta: &str, spec: &str) {
        self.apply(&load_balancer(name, meta, spec)).await;
    }

    pub(crate) async fn get(&self, name: &str) -> Result<Service> {
        Ok(Api::<Service>::namespaced(self.client(), "default").get(name).await?)
    }

    pub(crate) async fn all(&self) -> Vec<Service> {
        Api::<Service>::all(self.client()).list(&ListParams::default()).await.unwrap().items
    }

    /// Waits until `name` has these addresses, in this order, and says from which pool.
    pub(crate) async fn has(&self, name: &str, addresses: &[&str], pool: &str) -> Service {
        self.until(name, &format!("has {addresses:?} from {pool}"), |service| {
            ingress(service) == addresses
                && annotation(service, "metallb.io/ip-allocated-from-pool") == Some(pool)
        })
        .await
    }

    /// Waits until `name` has no address, and why. Returns the sentence.
    pub(crate) async fn waits(&self, name: &str, reason: &str) -> String {
        let service = self
            .until(name, &format!("waits because of {reason}"), |service| {
                ingress(service).is_empty()
                    && condition(service, "patina.io/Allocated")
                        .is_some_and(|c| c.0 == "False" && c.1 == reason)
            })
            .await;
        condition(&service, "patina.io/Allocated").unwrap().2
    }

    pub(crate) async fn until(&self, name: &str, what: &str, holds: impl Fn(&Service) -> bool) -> Service {
        let result = wait::until(&format!("Service {name} {what}"), SOON, || async {
            let service = self.get(name).await?;
            Ok(if holds(&service) {
                Seen::Done(service)
            } else {
                Seen::Not(format!("{:?} {:?}", service.metadata.annotations, service.status))
            })
        })
        .await;
        result.unwrap_or_else(|error| panic!("{error:#}\n{}", self.logs()))
    }

    /// Waits for an event about an object.
    pub(crate) async fn event(&self, kind: &str, name: &str, reason: &str) -> Event {
        let events: Api<Event> = Api::all(self.client());
        let result = wait::until(&format!("event {reason} about {kind} {name}"), SOON, || async {
            let all = events.list(&ListParams::default()).await?.items;
            let about = |event: &&Event| {
                event
                    .regarding
                    .as_ref()
                    .is_some_and(|r| r.kind.as_deref() == Some(kind) && r.name.as_deref() == Some(name))
            };
            let found =
                all.iter().filter(about).find(|event| event.reason.as_deref() == Some(reason)).cloned();
            let seen: Vec<_> = all.iter().filter(about).map(|event| (&event.reason, &event.note)).collect();
            Ok(found.map_or_else(|| Seen::Not(format!("{seen:?}")), Seen::Done))
        })
        .await;
        result.unwrap_or_else(|error| panic!("{error:#}\n{}", self.logs()))
    }

    /// The ConfigurationState of the controller, once it says `result`.
    pub(crate) async fn configuration_is(&self, result: &str) -> serde_json::Value {
        let kind = GroupVersionKind::gvk("metallb.io", "v1beta1", "ConfigurationState");
        let resource = ApiResource::from_gvk(&kind);
        let api: Api<DynamicObject> = Api::namespaced_with(self.client(), NAMESPACE, &resource);
        let seen = wait::until(&format!("the ConfigurationState says {result}"), SOON, || async {
            let object = api.get("controller").await?;
            let status = object.data["status"].clone();
            assert_eq!(object.labels()["metallb.io/component-type"], "controller");
            Ok(if status["result"] == result { Seen::Done(status) } else { Seen::Not(status.to_string()) })
        })
        .await;
        seen.unwrap_or_else(|error| panic!("{error:#}\n{}", self.logs()))
    }

    pub(crate) async fn object(&self, kind: &str, name: &str) -> serde_json::Value {
        let gvk = GroupVersionKind::gvk("metallb.io", "v1beta1", kind);
        let resource = ApiResource::from_gvk(&gvk);
        let api: Api<DynamicObject> = Api::namespaced_with(self.client(), NAMESPACE, &resource);
        serde_json::to_value(api.get(name).await.unwrap()).unwrap()
    }

    pub(crate) fn logs(&self) -> String {
        let mut text = String::new();
        for entry in std::fs::read_dir(self.plane.run().path().join("logs")).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().contains("ctl") {
                let tail = patina_e2e::report::tail(&entry.path(), 60);
                text += &format!("--- {}\n{tail}\n", entry.path().display());
            }
        }
        text
    }
}

impl Controller {
    /// The value of a metric, by its line's beginning.
    pub(crate) async fn metric(&self, line: &str) -> Result<f64> {
        let text = self.metrics().await?;
        let value =
            text.lines().find_map(|l| l.strip_prefix(line)).with_context(|| format!("{line} in\n{text}"))?;
        Ok(value.trim().parse()?)
    }

    pub(crate) async fn metrics(&self) -> Result<String> {
        get(self.metrics.number(), "/metrics").await
    }

    /// What `/readyz` says: "ok", or a line per part that is not ready.
    pub(crate) async fn readyz(&self) -> Result<String> {
        let answer = get(self.health.number(), "/readyz").await?;
        let (_, body) = answer.split_once("\r\n\r\n").context("an answer without a body")?;
        Ok(body.trim().to_owned())
    }

    pub(crate) async fn readyz_says(&self, text: &str) -> String {
        let what = format!("/readyz says {text:?}");
        let said = wait::until(&what, SOON, || async {
            let said = self.readyz().await?;
            Ok(Seen::when(said.contains(text), said))
        });
        said.await.unwrap_or_else(|error| panic!("{error:#}\n{}", self.process.log_tail(30)))
    }

    pub(crate) async fn metric_is(&self, line: &str, value: f64) {
        wait::until(&format!("{line} is {value}"), SOON, || async {
            let now = self.metric(line).await?;
            Ok(Seen::when((now - value).abs() < 0.5, now).map_unit())
        })
        .await
        .unwrap();
    }
}

async fn get(port: u16, path: &'static str) -> Result<String> {
    let at = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let text = tokio::task::spawn_blocking(move || -> Result<String> {
        let mut stream = std::net::TcpStream::connect(at)?;
        stream.set_read_timeout(Some(secs(5)))?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: controller\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    });
    text.await?
}

trait MapUnit {
    fn map_unit(self) -> Seen<()>;
}

impl<T: Debug> MapUnit for Seen<T> {
    fn map_unit(self) -> Seen<()> {
        match self {
            Seen::Done(_) => Seen::Done(()),
            Seen::Not(text) => Seen::Not(text),
        }
    }
}

pub(crate) fn load_balancer(name: &str, meta: &str, spec: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{ name: {name}, namespace: default, {meta} }}\n\
         spec: {{ type: LoadBalancer, allocateLoadBalancerNodePorts: false, selector: {{ app: web }}, \
         ports: [{{ port: 80 }}], {spec} }}\n"
    )
}

pub(crate) fn ingress(service: &Service) -> Vec<&str> {
    let status =
        service.status.as_ref().and_then(|s| s.load_balancer.as_ref()).and_then(|lb| lb.ingress.as_ref());
    status.into_iter().flatten().filter_map(|entry| entry.ip.as_deref()).collect()
}

pub(crate) fn annotation<'a>(service: &'a Service, key: &str) -> Option<&'a str> {
    service.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// Status, reason and message of a condition.
pub(crate) fn condition(service: &Service, type_: &str) -> Option<(String, String, String)> {
    let conditions = service.status.as_ref()?.conditions.as_ref()?;
    let found = conditions.iter().find(|c| c.type_ == type_)?;
    Some((found.status.clone(), found.reason.clone(), found.message.clone()))
}

/// By namespace and name.
pub(crate) fn versions(services: &[Service]) -> BTreeMap<String, String> {
    let entry = |service: &Service| {
        let name = format!("{}/{}", service.namespace().unwrap_or_default(), service.name_any());
        (name, service.resource_version().unwrap_or_default())
    };
    services.iter().map(entry).collect()
}
