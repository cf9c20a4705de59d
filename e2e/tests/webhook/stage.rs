//! A control plane that can reach webhooks, the chart's objects, and replicas of the controller behind its Service.
//!
//! All are in one network namespace, so each replica has a port of its own, and an EndpointSlice that says so.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use patina_e2e::control_plane::{ControlPlane, Options, Said};
use patina_e2e::netns::Netns;
use patina_e2e::process::{Process, Spec};
use patina_e2e::rundir::RunDir;
use patina_e2e::wait::{self, Seen, secs};
use patina_e2e::{binaries, paths};
use serde_json::Value;

pub(crate) const NAMESPACE: &str = "metallb-system";
pub(crate) const SHELL: &str = "validatingwebhookconfiguration/metallb-webhook-configuration";
pub(crate) const PEERS: &str = "crd/bgppeers.metallb.io";
pub(crate) const SOON: Duration = secs(30);
/// Of the API server, and of every replica.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(172, 25, 9, 1);

pub(crate) struct Stage {
    pub(crate) plane: ControlPlane,
    netns: Netns,
}

/// A controller behind the Service.
pub(crate) struct Replica {
    pub(crate) process: Process,
    number: u8,
}

impl Stage {
    /// The chart's default is installed; no controller runs.
    pub(crate) async fn installed(apply: &[&str]) -> Stage {
        let run = Arc::new(RunDir::create().unwrap());
        let netns = Netns::create(&run, "hook").unwrap();
        netns.ip(&["link", "add", "api0", "type", "bridge"]).unwrap();
        netns.ip(&["addr", "add", &format!("{ADDRESS}/24"), "dev", "api0"]).unwrap();
        netns.ip(&["link", "set", "api0", "up"]).unwrap();
        let options = Options {
            run: Some(run),
            inside: Some((netns.clone(), SocketAddr::from((ADDRESS, 6443)))),
            apiserver_flags: vec!["--enable-aggregator-routing=true".to_owned()],
            controller_manager: false,
            ..Options::default()
        };
        let plane = ControlPlane::start(options).await.unwrap();
        plane.kubectl(&["create", "namespace", NAMESPACE]).await.unwrap();
        let stage = Stage { plane, netns };
        stage.install(apply).await;
        let crds = paths::crds_yaml();
        let crds = crds.to_str().unwrap();
        stage.kubectl(&["wait", "--for=condition=Established", "--timeout=30s", "-f", crds]).await;
        stage
    }

    /// `kubectl APPLY -f` of the CRDs and of what the chart renders.
    pub(crate) async fn install(&self, apply: &[&str]) {
        for file in manifests() {
            self.kubectl(&[apply, &["-f", &file]].concat()).await;
        }
    }

    /// Starts a replica and waits until it is ready; then its Service leads to it.
    pub(crate) async fn replica(&self, number: u8, args: &[&str]) -> Replica {
        let replica = self.start(number, args).await;
        self.ready(&replica).await;
        self.endpoint(&replica, true).await;
        replica
    }

    pub(crate) async fn start(&self, number: u8, args: &[&str]) -> Replica {
        let kubeconfig = self.plane.inside_kubeconfig_for(NAMESPACE, "patina-controller").await.unwrap();
        let process = Spec::new(format!("ctl-{number}"), binaries::path("patina-controller").unwrap())
            .args(["--namespace", NAMESPACE, "--log-level=debug", "--log-format=text"])
            .args([format!("--port={}", 7000 + u16::from(number))])
            .args([format!("--health-probe-port={}", 8000 + u16::from(number))])
            .args([format!("--webhook-port={}", 9000 + u16::from(number))])
            .args(args.iter().copied())
            .env("KUBECONFIG", kubeconfig)
            .env("METALLB_POD_NAME", format!("ctl-{number}"))
            .netns(Some(&self.netns))
            .spawn(self.plane.run())
            .unwrap();
        Replica { process, number }
    }

    pub(crate) async fn ready(&self, replica: &Replica) {
        let ready = wait::until("the replica is ready", SOON, || async {
            let answer = self.ask(8000 + u16::from(replica.number), "/readyz").await?;
            Ok(Seen::when(answer.contains(" 200 "), answer))
        });
        ready.await.unwrap_or_else(|e| panic!("{e:#}\n{}", replica.process.log_tail(40)));
    }

    /// The value of a metric of a replica.
    pub(crate) async fn metric(&self, replica: &Replica, line: &str) -> f64 {
        let text = self.ask(7000 + u16::from(replica.number), "/metrics").await.unwrap();
        let value =
            text.lines().find_map(|l| l.strip_prefix(line)).unwrap_or_else(|| panic!("no {line} in\n{text}"));
        value.trim().parse().unwrap()
    }

    async fn ask(&self, port: u16, path: &'static str) -> Result<String> {
        let netns = self.netns.clone();
        tokio::task::spawn_blocking(move || {
            netns.run(|| probe(SocketAddr::from(([127, 0, 0, 1], port)), path))?
        })
        .await?
    }

    /// As the endpoints' controller does when a pod becomes ready, or is deleted.
    pub(crate) async fn endpoint(&self, replica: &Replica, there: bool) {
        let number = replica.number;
        if !there {
            let name = format!("endpointslice/hook-{number}");
            self.kubectl(&["delete", &name, "-n", NAMESPACE]).await;
            return;
        }
        self.plane
            .apply(&format!(
                "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: hook-{number}\n  \
                 namespace: {NAMESPACE}\n  labels: {{kubernetes.io/service-name: metallb-webhook-service}}\n\
                 addressType: IPv4\nports: [{{name: webhook, port: {}, protocol: TCP}}]\n\
                 endpoints: [{{addresses: [{ADDRESS}], conditions: {{ready: true}}}}]\n",
                9000 + u16::from(number)
            ))
            .await
            .unwrap();
    }

    /// The API server asks us, about everything.
    pub(crate) async fn asked(&self) {
        wait::until("the API server asks the webhook", SOON, || async {
            let said = self.apply_dry(BAD_POOL).await;
            let strategy = self.get(PEERS, "{.spec.conversion.strategy}").await;
            Ok(Seen::when(said.stderr.contains("overlaps") && strategy == "Webhook", (said, strategy)))
        })
        .await
        .unwrap_or_else(|e| panic!("{e:#}\n{}", self.logs()));
    }

    pub(crate) async fn kubectl(&self, args: &[&str]) -> String {
        self.plane.kubectl(args).await.unwrap_or_else(|e| panic!("{e:#}\n{}", self.logs()))
    }

    /// `kubectl apply -f -`, whatever comes of it.
    pub(crate) async fn apply(&self, yaml: &str) -> Said {
        self.plane.kubectl_with(&["apply", "-f", "-"], yaml).await.unwrap()
    }

    pub(crate) async fn apply_dry(&self, yaml: &str) -> Said {
        self.plane.kubectl_with(&["apply", "--dry-run=server", "-f", "-"], yaml).await.unwrap()
    }

    pub(crate) async fn applied(&self, yaml: &str) -> Said {
        let said = self.apply(yaml).await;
        assert!(said.success, "{said:?}\n{}", self.logs());
        said
    }

    /// A field of an object, by jsonpath.
    pub(crate) async fn get(&self, object: &str, path: &str) -> String {
        let output = format!("jsonpath={path}");
        self.plane.kubectl(&["get", object, "-n", NAMESPACE, "-o", &output]).await.unwrap_or_default()
    }

    pub(crate) async fn until(
        &self,
        what: &str,
        object: &str,
        path: &str,
        holds: impl Fn(&str) -> bool,
    ) -> String {
        wait::until(what, SOON, || async {
            let value = self.get(object, path).await;
            Ok(if holds(&value) { Seen::Done(value) } else { Seen::Not(value) })
        })
        .await
        .unwrap_or_else(|e| panic!("{e:#}\n{}", self.logs()))
    }

    /// A BGPPeer in a version.
    pub(crate) fn peers(&self, version: &str) -> Api<DynamicObject> {
        let gvk = GroupVersionKind::gvk("metallb.io", version, "BGPPeer");
        let resource = ApiResource::from_gvk(&gvk);
        Api::namespaced_with(self.plane.client(), NAMESPACE, &resource)
    }

    /// An entry of the Secret.
    pub(crate) async fn secret(&self, key: &str) -> String {
        let api: Api<Secret> = Api::namespaced(self.plane.client(), NAMESPACE);
        let secret = api.get("metallb-webhook-cert").await.unwrap();
        let bytes = secret.data.unwrap_or_default().remove(key).unwrap_or_default().0;
        String::from_utf8(bytes).unwrap()
    }

    pub(crate) fn logs(&self) -> String {
        let tail = |n: u8| {
            let path = self.plane.run().log(&format!("ctl-{n}"));
            format!("--- {}\n{}\n", path.display(), patina_e2e::report::tail(&path, 40))
        };
        tail(1) + &tail(2)
    }
}

/// Wrong in a way that the CRD's own rules cannot see.
pub(crate) const BAD_POOL: &str = "
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: bad, namespace: metallb-system}
spec: {addresses: [198.18.0.0/24, 198.18.0.64/26]}
";

/// The CRDs, and the chart's default.
pub(crate) fn manifests() -> [String; 2] {
    let golden = paths::workspace().join("charts/patina/tests/golden/default.yaml");
    [paths::crds_yaml(), golden].map(|path| path.to_str().unwrap().to_owned())
}

fn probe(at: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(at)?;
    stream.set_read_timeout(Some(secs(2)))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: replica\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// Writes and reads one after another, each of which needs the webhook: a peer in the version that is converted.
pub(crate) struct Stream {
    done: Arc<AtomicUsize>,
    end: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<Vec<String>>,
}

impl Stream {
    pub(crate) async fn start(stage: &Stage) -> Stream {
        stage.applied(PEER).await;
        let (done, end) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, stop) = (Arc::clone(&done), Arc::clone(&end));
        let peers = stage.peers("v1beta1");
        let task = tokio::spawn(async move {
            let mut failures = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let n = count.load(Ordering::Relaxed);
                if let Err(error) = write(&peers, n).await {
                    failures.push(format!("write {n}: {error:#}"));
                }
                count.fetch_add(1, Ordering::Relaxed);
            }
            failures
        });
        Stream { done, end, task }
    }

    pub(crate) fn done(&self) -> usize {
        self.done.load(Ordering::Relaxed)
    }

    /// So many more writes have been made.
    pub(crate) async fn goes_on(&self, more: usize) {
        let goal = self.done() + more;
        wait::until("the writes go on", secs(60), || async {
            Ok(Seen::when(self.done() >= goal, self.done()))
        })
        .await
        .unwrap();
    }

    /// Ends it: how many, and which failed.
    pub(crate) async fn end(self) -> (usize, Vec<String>) {
        self.end.store(true, Ordering::Relaxed);
        let failures = self.task.await.unwrap();
        (self.done.load(Ordering::Relaxed), failures)
    }
}

async fn write(peers: &Api<DynamicObject>, n: usize) -> Result<()> {
    let patch = serde_json::json!({"metadata": {"annotations": {"n": n.to_string()}}});
    let peer = peers.patch("stream", &PatchParams::default(), &Patch::Merge(patch)).await?;
    let found: &Value = &peer.data["spec"];
    if found["peerAddress"] != "192.0.2.77" || found.get("vrf").is_some() {
        bail!("not a peer of v1beta1: {found}");
    }
    Ok(())
}

const PEER: &str = "
apiVersion: metallb.io/v1beta2
kind: BGPPeer
metadata: {name: stream, namespace: metallb-system}
spec: {myASN: 64512, peerASN: 64513, peerAddress: 192.0.2.77, vrf: red}
";
