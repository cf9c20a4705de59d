//! Planned handovers in a lab with kube-proxy, while a client sends a thousand requests a second: none may be lost.

mod lab_harness;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lab_harness::wait_for;
use patina_e2e::lab::plan::CLIENT_V4;
use patina_e2e::lab::{Lab, Options};
use patina_e2e::prober::Prober;
use patina_e2e::traffic::{Echo, Traffic};
use patina_e2e::wait::{self, Seen, secs};

fn main() -> ExitCode {
    lab_harness::run(
        Options::default(),
        prepare,
        &[
            ("a_rolling_restart_of_all_speakers_loses_no_request", rolling_restart),
            ("a_node_that_drains_and_comes_back_loses_no_request", drain),
        ],
    )
}

const ECHO: u16 = 7;
const SPEAKERS: &str = "app.kubernetes.io/component=speaker";
const OBJECTS: &str = "
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: lab, namespace: metallb-system}
spec: {addresses: [172.25.7.100-172.25.7.199]}
---
apiVersion: metallb.io/v1beta1
kind: L2Advertisement
metadata: {name: lab, namespace: metallb-system}
---
apiVersion: v1
kind: Service
metadata: {name: echo}
spec:
  type: LoadBalancer
  selector: {app: sample-app}
  ports: [{name: echo, port: 7, targetPort: 7, protocol: UDP}]
";

fn prepare(lab: &Lab) -> Result<()> {
    lab.kubectl().apply(include_str!("../tutorials/sample-app.yaml"))?;
    lab.kubectl().apply(OBJECTS)?;
    wait_for(lab.pods("default", "app=sample-app", 3)).map(drop)
}

fn rolling_restart(lab: &Lab) -> Result<()> {
    loses_nothing(lab, |client| {
        let kubectl = lab.kubectl();
        let daemon_set =
            kubectl.run(&["get", "daemonset", "-n", "metallb-system", "-l", SPEAKERS, "-o", "name"])?;
        kubectl.run(&["rollout", "restart", "-n", "metallb-system", daemon_set.trim()])?;
        kubectl.run(&["rollout", "status", "-n", "metallb-system", daemon_set.trim(), "--timeout=90s"])?;
        client.announcer(|_| true).map(drop)
    })
}

fn drain(lab: &Lab) -> Result<()> {
    loses_nothing(lab, |client| {
        let node = client.announcer(|_| true)?;
        lab.kubectl().run(&["annotate", "node", &node, "patina.io/drain=true"])?;
        client.announcer(|other| other != node)?;
        lab.kubectl().run(&["annotate", "node", &node, "patina.io/drain-"])?;
        client.announcer(|other| other == node).map(drop)
    })
}

struct Client<'a> {
    lab: &'a Lab,
    vip: Ipv4Addr,
    prober: Prober,
}

impl Client<'_> {
    /// Waits until one node that `wanted` takes answers alone.
    fn announcer(&self, wanted: impl Fn(&str) -> bool) -> Result<String> {
        wait::until_blocking("the wanted node answers alone", secs(30), || {
            let mac = self.prober.sole_owner(self.vip, Duration::from_millis(300), secs(5))?;
            let node = self.lab.plan().node_of_mac(mac).context("not a node")?.name.clone();
            Ok(if wanted(&node) { Seen::Done(node) } else { Seen::Not(node) })
        })
    }
}

/// Traffic through the address while `work` is done.
fn loses_nothing(lab: &Lab, work: impl FnOnce(&Client<'_>) -> Result<()>) -> Result<()> {
    let pods = wait_for(lab.pods("default", "app=sample-app", 3))?;
    let names = pods.iter().filter_map(|pod| pod.metadata.name.as_deref());
    let _echoes = names.map(|name| Echo::start(&lab.netns(name)?, ECHO)).collect::<Result<Vec<_>>>()?;
    let vip = *wait_for(lab.addresses("default", "echo", 1))?.first().context("no address")?;
    wait_for(lab.rules(&lab.node_names(), &[vip], &[]))?;
    let IpAddr::V4(v4) = vip else { bail!("{vip} is no IPv4 address") };
    let prober = Prober::start(&lab.client_netns(), CLIENT_V4, &[v4], Duration::from_millis(10))?;
    let client = Client { lab, vip: v4, prober };
    let first = client.announcer(|_| true)?;
    client.prober.forget();

    let traffic = Traffic::start(&lab.client_netns(), SocketAddr::new(vip, ECHO), 1000)?;
    let worked = work(&client);
    let counted = traffic.finish()?;
    worked?;
    ensure!(counted.sent > 1000, "only {} requests were sent", counted.sent);
    ensure!(counted.lost.is_empty(), "{} of {} requests were lost", counted.lost.len(), counted.sent);
    let changes = client.prober.timeline()?.changes(v4).len();
    ensure!(changes >= 1, "the address never left {first}: nothing was tested");
    Ok(())
}
