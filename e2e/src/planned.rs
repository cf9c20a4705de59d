//! Planned handovers in a lab with kube-proxy and a kubelet that restarts Pods: a rolling restart of all speakers, a drain, an
//! eviction, while a client sends requests through the address and asks for it by ARP. For the tests and for the bench.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};

use crate::lab::Lab;
use crate::lab::plan::CLIENT_V4;
use crate::prober::Prober;
use crate::prober::timeline::Timeline;
use crate::traffic::{Counted, Echo, Traffic};
use crate::wait::{self, Seen, secs};

/// Requests per second.
pub const RATE: u32 = 1000;
/// The client asks by ARP that often.
pub const EVERY: Duration = Duration::from_millis(10);
const ECHO: u16 = 7;
const SPEAKERS: &str = "app.kubernetes.io/component=speaker";
/// Replicas of the sample app.
const PODS: usize = 3;

const OBJECTS: &str = "
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: planned, namespace: metallb-system}
spec: {addresses: [172.25.7.100-172.25.7.199]}
---
apiVersion: metallb.io/v1beta1
kind: L2Advertisement
metadata: {name: planned, namespace: metallb-system}
---
apiVersion: v1
kind: Service
metadata: {name: echo}
spec:
  type: LoadBalancer
  selector: {app: sample-app}
  ports: [{name: echo, port: 7, targetPort: 7, protocol: UDP}]
";

/// A client of a Service whose address changes hands.
#[derive(Debug)]
pub struct Client<'a> {
    lab: &'a Lab,
    vip: Ipv4Addr,
    prober: Prober,
    _echoes: Vec<Echo>,
}

/// What the client saw during a piece of work.
#[derive(Debug)]
pub struct Told {
    /// Just before the first request.
    pub began: SystemTime,
    /// What became of the requests.
    pub counted: Counted,
    /// What was asked and heard by ARP.
    pub timeline: Timeline,
}

impl<'a> Client<'a> {
    /// Applies the objects, waits until all nodes forward, and asks.
    ///
    /// # Errors
    /// A part did not come up.
    pub async fn start(lab: &'a Lab) -> Result<Self> {
        let kubectl = lab.kubectl();
        kubectl.apply(include_str!("../tutorials/sample-app.yaml"))?;
        kubectl.apply(OBJECTS)?;
        let pods = lab.pods("default", "app=sample-app", PODS).await?;
        let names = pods.iter().filter_map(|pod| pod.metadata.name.as_deref());
        let echoes = names.map(|name| Echo::start(&lab.netns(name)?, ECHO)).collect::<Result<Vec<_>>>()?;
        let vip = *lab.addresses("default", "echo", 1).await?.first().context("no address")?;
        lab.rules(&lab.node_names(), &[vip], &[]).await?;
        let IpAddr::V4(vip) = vip else { bail!("{vip} is no IPv4 address") };
        let prober = Prober::start(&lab.client_netns(), CLIENT_V4, &[vip], EVERY)?;
        Ok(Self { lab, vip, prober, _echoes: echoes })
    }

    /// The address.
    #[must_use]
    pub fn vip(&self) -> Ipv4Addr {
        self.vip
    }

    /// Traffic from a second before the work to a second after it.
    ///
    /// # Errors
    /// The work's, or the traffic had to stop.
    pub async fn during(&self, work: impl Future<Output = Result<()>>) -> Result<Told> {
        self.announcer(|_| true)?;
        self.prober.forget();
        let began = SystemTime::now();
        let at = SocketAddr::new(self.vip.into(), ECHO);
        let traffic = Traffic::start(&self.lab.client_netns(), at, RATE)?;
        requests(&traffic, u64::from(RATE)).await?;
        let worked = work.await;
        let enough = requests(&traffic, traffic.sent() + u64::from(RATE)).await;
        let counted = traffic.finish()?;
        worked.and(enough)?;
        Ok(Told { began, counted, timeline: self.prober.timeline()? })
    }

    /// Restarts all speakers, as `kubectl rollout restart` does it, until every Pod is another one and ready.
    ///
    /// # Errors
    /// It did not end in time.
    pub async fn roll(&self) -> Result<()> {
        let kubectl = self.lab.kubectl();
        let daemon_set =
            kubectl.run(&["get", "daemonset", "-n", "metallb-system", "-l", SPEAKERS, "-o", "name"])?;
        let daemon_set = daemon_set.trim().to_owned();
        kubectl.run(&["rollout", "restart", "-n", "metallb-system", &daemon_set])?;
        wait::until("every speaker was restarted", secs(120), || async {
            let path = "jsonpath={.metadata.generation} {.status.observedGeneration} {.status.updatedNumberScheduled} {.status.numberReady} {.status.desiredNumberScheduled}";
            let said = kubectl.run(&["get", "-n", "metallb-system", &daemon_set, "-o", path])?;
            let numbers: Vec<u32> = said.split(' ').filter_map(|n| n.parse().ok()).collect();
            let done = matches!(numbers[..], [g, o, u, r, d] if g == o && u == d && r == d);
            Ok(Seen::when(done, said))
        })
        .await?;
        self.speakers().await?;
        self.announcer(|_| true).map(drop)
    }

    /// Drains the announcing node of its addresses, and gives them back.
    ///
    /// # Errors
    /// The address did not go, or did not come back.
    pub async fn drain(&self) -> Result<()> {
        let kubectl = self.lab.kubectl();
        let node = self.announcer(|_| true)?;
        kubectl.run(&["annotate", "node", &node, "patina.io/drain=true", "--overwrite"])?;
        self.announcer(|other| other != node)?;
        kubectl.run(&["annotate", "node", &node, "patina.io/drain-"])?;
        self.announcer(|other| other == node).map(drop)
    }

    /// Cordons the announcing node, so that nothing new comes, and deletes the speaker's Pod; the speaker tolerates that,
    /// and its DaemonSet starts another.
    ///
    /// # Errors
    /// The new one did not come up.
    pub async fn evict(&self) -> Result<()> {
        let kubectl = self.lab.kubectl();
        let node = self.announcer(|_| true)?;
        kubectl.run(&["cordon", &node])?;
        let on_it = format!("--field-selector=spec.nodeName={node}");
        kubectl.run(&["delete", "pod", "-n", "metallb-system", "-l", SPEAKERS, &on_it])?;
        self.speakers().await?;
        self.announcer(|_| true)?;
        kubectl.run(&["uncordon", &node]).map(drop)
    }

    async fn speakers(&self) -> Result<()> {
        self.lab.pods("metallb-system", SPEAKERS, self.lab.plan().nodes.len()).await.map(drop)
    }

    /// Waits until one node that `wanted` takes has answered alone for a while. The lab's own question would be answered
    /// among those of the prober.
    fn announcer(&self, wanted: impl Fn(&str) -> bool) -> Result<String> {
        wait::until_blocking("the wanted node answers alone", secs(30), || {
            let mac = self.prober.sole_owner(self.vip, Duration::from_millis(300), secs(5))?;
            let node = self.lab.plan().node_of_mac(mac).context("not a node")?.name.clone();
            Ok(if wanted(&node) { Seen::Done(node) } else { Seen::Not(node) })
        })
    }
}

async fn requests(traffic: &Traffic, count: u64) -> Result<()> {
    wait::until(&format!("{count} requests were sent"), secs(30), || async {
        Ok(Seen::when(traffic.sent() >= count, traffic.sent()))
    })
    .await
    .map(drop)
}
