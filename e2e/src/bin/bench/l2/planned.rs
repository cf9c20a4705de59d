//! Planned handovers, in a lab with kube-proxy and a kubelet that restarts Pods: a rolling restart of all speakers, and drains,
//! while a client sends 1,000 requests a second through the address and asks for it by ARP every 10 ms.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use patina_e2e::lab::plan::CLIENT_V4;
use patina_e2e::lab::{Lab, Options};
use patina_e2e::prober::Prober;
use patina_e2e::traffic::{Counted, Echo, Traffic};
use patina_e2e::wait::{self, Seen, secs};

use super::stage::{EVERY, ms, runs};
use crate::Row;
use crate::cluster::release_binary;
use crate::report::say;

const NODES: u8 = 3;
const RATE: u32 = 1000;
const ECHO: u16 = 7;
const SPEAKERS: &str = "app.kubernetes.io/component=speaker";

const OBJECTS: &str = "
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: bench, namespace: metallb-system}
spec: {addresses: [172.25.7.100-172.25.7.199]}
---
apiVersion: metallb.io/v1beta1
kind: L2Advertisement
metadata: {name: bench, namespace: metallb-system}
---
apiVersion: v1
kind: Service
metadata: {name: echo}
spec:
  type: LoadBalancer
  selector: {app: sample-app}
  ports: [{name: echo, port: 7, targetPort: 7, protocol: UDP}]
";

pub(crate) async fn measure(rows: &mut Vec<Row>) -> Result<()> {
    let speaker = release_binary("patina-speaker")?;
    let programs = speaker.parent().map(Path::to_path_buf);
    let options = Options { nodes: NODES, programs, ..Options::default() };
    let lab = tokio::task::spawn_blocking(move || Lab::up(options, say)).await??;
    let measured = all(&lab, rows).await;
    measured.inspect_err(|_| lab.keep_report())
}

async fn all(lab: &Lab, rows: &mut Vec<Row>) -> Result<()> {
    let kubectl = lab.kubectl();
    let app = include_str!("../../../../tutorials/sample-app.yaml");
    kubectl.apply(app)?;
    kubectl.apply(OBJECTS)?;
    let pods = lab.pods("default", "app=sample-app", usize::from(NODES)).await?;
    let _echoes = pods
        .iter()
        .filter_map(|pod| pod.metadata.name.as_deref())
        .map(|name| Echo::start(&lab.netns(name)?, ECHO))
        .collect::<Result<Vec<_>>>()?;
    let vip = *lab.addresses("default", "echo", 1).await?.first().context("no address")?;
    lab.announcer(vip).await?;
    lab.rules(&lab.node_names(), &[vip], &[]).await?;
    let IpAddr::V4(v4) = vip else { bail!("{vip} is no IPv4 address") };
    let client =
        Client { lab, vip: v4, prober: Prober::start(&lab.client_netns(), CLIENT_V4, &[v4], EVERY)? };

    let rounds = runs(3)?.max(1);
    let mut rolled = Told::default();
    for round in 0..rounds {
        say(&format!("rolling restart {round}"));
        rolled.add(client.during(roll(lab)).await?);
    }
    rolled.rows("rolling", "rolling restart of all speakers (SIGTERM, one after another)", rounds, rows);

    let mut drained = Told::default();
    for round in 0..rounds {
        say(&format!("drain {round}"));
        drained.add(client.during(client.drain()).await?);
    }
    drained.rows(
        "drain",
        "the announcing node is annotated patina.io/drain=true, and released",
        rounds,
        rows,
    );

    let mut evicted = Told::default();
    for round in 0..rounds {
        say(&format!("eviction {round}"));
        evicted.add(client.during(client.evict()).await?);
    }
    evicted.rows("evict", "the announcing node is cordoned and its speaker's Pod deleted", rounds, rows);
    Ok(())
}

struct Client<'a> {
    lab: &'a Lab,
    vip: Ipv4Addr,
    prober: Prober,
}

/// What the client saw.
#[derive(Default)]
struct Told {
    sent: usize,
    lost: usize,
    slowest: Duration,
    /// The longest without an answer by ARP, and the time in which two answered.
    silence: Duration,
    two: Duration,
    changes: usize,
}

impl Client<'_> {
    /// Traffic from a second before the work to a second after it.
    async fn during(&self, work: impl Future<Output = Result<()>>) -> Result<Told> {
        self.announcer(|_| true)?;
        self.prober.forget();
        let began = SystemTime::now();
        let traffic = Traffic::start(&self.lab.client_netns(), SocketAddr::new(self.vip.into(), ECHO), RATE)?;
        tokio::time::sleep(secs(1)).await;
        let worked = work.await;
        tokio::time::sleep(secs(1)).await;
        let counted = traffic.finish()?;
        worked?;
        let timeline = self.prober.timeline()?;
        let now = timeline.asked.last().context("nothing was asked")?.at;
        let changes = timeline.changes(self.vip);
        for change in &changes {
            say(&format!(
                "it went from {:02x?} to {:02x?}, silent for {:.0?}",
                change.from, change.to, change.silence
            ));
        }
        for lost in counted.lost.iter().take(5) {
            say(&format!(
                "lost: sent {:.0?} after the start",
                lost.duration_since(began).unwrap_or_default()
            ));
        }
        let Counted { sent, lost, slowest } = counted;
        let two = timeline.answered_by_two(self.vip, began).len();
        Ok(Told {
            sent,
            lost: lost.len(),
            slowest,
            silence: timeline.longest_silence(self.vip, began + Duration::from_millis(100), now),
            two: EVERY * u32::try_from(two)?,
            changes: changes.len(),
        })
    }
}

impl Client<'_> {
    /// Waits until one node that `wanted` takes has answered alone for a while. The lab's own question would be answered
    /// among those of the prober.
    fn announcer(&self, wanted: impl Fn(&str) -> bool) -> Result<String> {
        wait::until_blocking("the wanted node answers alone", secs(30), || {
            let mac = self.prober.sole_owner(self.vip, Duration::from_millis(300), secs(5))?;
            let node = self.lab.plan().node_of_mac(mac).context("not a node")?.name.clone();
            Ok(if wanted(&node) { Seen::Done(node) } else { Seen::Not(node) })
        })
    }

    async fn drain(&self) -> Result<()> {
        let kubectl = self.lab.kubectl();
        let node = self.announcer(|_| true)?;
        kubectl.run(&["annotate", "node", &node, "patina.io/drain=true", "--overwrite"])?;
        self.announcer(|other| other != node)?;
        kubectl.run(&["annotate", "node", &node, "patina.io/drain-"])?;
        self.announcer(|other| other == node).map(drop)
    }

    /// Cordoned, so that nothing new comes; the speaker tolerates that, and its DaemonSet starts another.
    async fn evict(&self) -> Result<()> {
        let kubectl = self.lab.kubectl();
        let node = self.announcer(|_| true)?;
        kubectl.run(&["cordon", &node])?;
        let on_it = format!("--field-selector=spec.nodeName={node}");
        kubectl.run(&["delete", "pod", "-n", "metallb-system", "-l", SPEAKERS, &on_it])?;
        self.lab.pods("metallb-system", SPEAKERS, usize::from(NODES)).await?;
        self.announcer(|_| true)?;
        kubectl.run(&["uncordon", &node]).map(drop)
    }
}

impl Told {
    fn add(&mut self, other: Told) {
        self.sent += other.sent;
        self.lost += other.lost;
        self.slowest = self.slowest.max(other.slowest);
        self.silence = self.silence.max(other.silence);
        self.two = self.two.max(other.two);
        self.changes += other.changes;
    }

    fn rows(&self, name: &str, what: &str, rounds: usize, rows: &mut Vec<Row>) {
        let row = |part: &str, value: f64, unit: &str, n: usize, what: String| {
            Row::new(&format!("{name}_{part}"), value, unit, n, what)
        };
        rows.extend([
            row("lost", self.lost as f64, "requests", self.sent, format!("{what}, {rounds} times, at {RATE} requests/s (UDP echo through the address and kube-proxy; the client forgets the MAC address every 100 ms): unanswered within 0.9 s")),
            row("slowest_ms", ms(self.slowest).round(), "ms", self.sent, "the slowest answer".to_owned()),
            row("silence_ms", ms(self.silence).round(), "ms", rounds, "the longest time in which nobody answered by ARP (asked every 10 ms)".to_owned()),
            row("two_answer_ms", ms(self.two).round(), "ms", rounds, "the longest time in which two answered, in one of them".to_owned()),
            row("changes", self.changes as f64, "", rounds, "how often the address changed hands, all together".to_owned()),
        ]);
    }
}

/// All speakers, as `kubectl rollout restart` does it, until every Pod is another one and ready.
async fn roll(lab: &Lab) -> Result<()> {
    let kubectl = lab.kubectl();
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
    lab.pods("metallb-system", SPEAKERS, usize::from(NODES)).await.map(drop)
}
