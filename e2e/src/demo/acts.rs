//! What happens in the demo, act by act.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};

use super::PROBE_EVERY;
use super::story::{Story, seconds};
use crate::client::requests;
use crate::lab::Lab;
use crate::lab::plan::{CLIENT_V4, NodePlan};
use crate::lab::topology::mac_text;
use crate::neighbour::{ANSWER, Watch};

const CONFIG_MAP: &str = include_str!("../../tutorials/metallb-0.11-configmap.yaml");
const SERVICES: &str = include_str!("../../tutorials/services.yaml");
const SAMPLE_APP: &str = include_str!("../../tutorials/sample-app.yaml");
const RESOURCES: &str = include_str!("../../tutorials/resources.yaml");

/// The longest that a takeover may take here: the API server has to notice the death of a node first.
const TAKEOVER: Duration = Duration::from_secs(15);
const REQUESTS: usize = 20;

/// The whole demo on `lab`.
pub(super) fn all(story: &Story, lab: &Lab) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let act = Act { story, lab };
        act.tutorial().await?;
        act.node_dies().await?;
        act.custom_resources().await
    })
}

struct Act<'a> {
    story: &'a Story,
    lab: &'a Lab,
}

impl Act<'_> {
    /// ConfigMap, every type of Service, ARP, requests.
    async fn tutorial(&self) -> Result<()> {
        let (story, kubectl) = (self.story, self.lab.kubectl());
        story.part("The tutorial's application and its Services, before there is any address to give");
        kubectl.apply(SAMPLE_APP)?;
        kubectl.apply(SERVICES)?;
        self.lab.endpoints("default", "sample-lb", 3).await?;
        story.show("kubectl get svc", &kubectl.run(&["get", "svc"])?);
        let before = self.not_ours().await?;

        story.part("The tutorial's ConfigMap, as it was written for MetalLB 0.11");
        let applied = Instant::now();
        story.show("kubectl apply -f metallb-0.11-configmap.yaml", &kubectl.apply(CONFIG_MAP)?);
        let vip = self.only_address("sample-lb").await?;
        story.say(&format!(
            "sample-lb has {vip} {} after the ConfigMap was there.",
            seconds(applied.elapsed())
        ));
        let fixed = self.only_address("sample-lb-fixed").await?;
        ensure!(
            fixed.to_string() == "172.25.7.150",
            "sample-lb-fixed asked for 172.25.7.150 and has {fixed}"
        );
        let selectorless = self.only_address("sample-none-selector").await?;
        story.show("kubectl get svc", &kubectl.run(&["get", "svc"])?);
        let after = self.not_ours().await?;
        ensure!(before == after, "Services of other types were changed: {before:?} is now {after:?}");
        story.say(&format!("The {} Services of other types are what they were, to the byte.", after.len()));

        story.part(
            "Who answers for the addresses? Asked by the client, a neighbour that is not in the cluster",
        );
        let leader = self.lab.announcer(vip).await?;
        self.show_arping(vip, &leader)?;
        let fixed_leader = self.lab.announcer(fixed).await?;
        story.say(&format!(
            "{fixed} (externalTrafficPolicy Local, at a wish) is announced by {}.",
            fixed_leader.name
        ));
        let other = self.lab.announcer(selectorless).await?;
        story.say(&format!(
            "{selectorless} (no selector; endpoints written by hand, which do not exist) is announced by {}.",
            other.name
        ));

        story.part("Requests from the client through the addresses");
        self.lab.rules(&self.lab.node_names(), &[vip, fixed], &[]).await?;
        self.request(SocketAddr::new(vip, 8080))?;
        let tally = self.request(SocketAddr::new(fixed, 80))?;
        let seen = tally.answers.iter().map(|a| a.client).collect::<Vec<_>>();
        ensure!(
            seen.iter().all(|c| *c == CLIENT_V4),
            "externalTrafficPolicy Local hides the client: {seen:?}"
        );
        ensure!(
            tally.nodes() == [fixed_leader.name.clone()],
            "answered by pods elsewhere: {:?}",
            tally.nodes()
        );
        story.say(&format!(
            "There the pods see the client's own address, {CLIENT_V4}, and only {}'s own pod answers.",
            fixed_leader.name
        ));

        story.part("The other types of Service work beside it");
        self.request(SocketAddr::from(([172, 25, 7, 12], 30080)))?;
        self.request(SocketAddr::from(([172, 25, 7, 11], 8080)))?;
        story.say("(A NodePort on node2, and an externalIP that is node1's address.)");
        Ok(())
    }

    /// The announcing node dies, comes back, and the tutorial's objects go.
    async fn node_dies(&self) -> Result<()> {
        let kubectl = self.lab.kubectl();
        self.story.part("The announcing node dies: SIGKILL for all its processes, and its cable is cut");
        let vip = self.only_address("sample-lb").await?;
        let dead = self.kill_announcer(vip).await?;
        self.lab.endpoints("default", "sample-lb", 2).await?;
        self.story
            .say("The speakers did not wait for the API server, which takes the node for dead only now.");
        self.story.show("kubectl get nodes", &kubectl.run(&["get", "nodes"])?);
        self.after_a_death(SocketAddr::new(vip, 8080), &dead).await?;
        self.lab.power_on(&dead.name)?;
        self.lab.node_is_back(&dead.name).await?;
        self.story.say(&format!("{} has booted again; its pods are ready.", dead.name));
        self.story.part("The tutorial's objects go");
        kubectl.said(&["delete", "-f", "-"], SERVICES)?;
        kubectl.said(&["delete", "-f", "-"], CONFIG_MAP)?;
        self.lab.silence(vip).await?;
        self.story.say(&format!("The Services are gone, and nobody answers for {vip}."));
        Ok(())
    }

    /// The same with CRs, IPv4 and IPv6.
    async fn custom_resources(&self) -> Result<()> {
        let (story, kubectl) = (self.story, self.lab.kubectl());
        story.part("The same with custom resources and both address families");
        story.show("kubectl apply -f resources.yaml", &kubectl.apply(RESOURCES)?);
        let ips = self.lab.addresses("default", "sample-dual", 2).await?;
        story.show("kubectl get svc sample-dual", &kubectl.run(&["get", "svc", "sample-dual"])?);
        let v6 = *ips.iter().find(|ip| ip.is_ipv6()).context("sample-dual has no IPv6 address")?;
        let v4 = *ips.iter().find(|ip| ip.is_ipv4()).context("sample-dual has no IPv4 address")?;
        let leader = self.lab.announcer(v6).await?;
        self.show_ndisc6(v6, &leader)?;
        let leader_v4 = self.lab.announcer(v4).await?;
        ensure!(
            leader_v4.name == leader.name,
            "{v4} is announced by {}, {v6} by {}",
            leader_v4.name,
            leader.name
        );
        self.lab.rules(&self.lab.node_names(), &ips, &[]).await?;
        self.request(SocketAddr::new(v4, 80))?;
        self.request(SocketAddr::new(v6, 80))?;

        story.part("And its announcing node dies, too");
        let dead = self.kill_announcer(v6).await?;
        self.lab.endpoints("default", "sample-dual", 2).await?;
        self.after_a_death(SocketAddr::new(v6, 80), &dead).await?;
        self.request(SocketAddr::new(v4, 80)).map(drop)
    }

    /// 20 requests that must all be answered.
    fn request(&self, at: SocketAddr) -> Result<crate::client::Tally> {
        let tally = requests(&self.lab.client_netns(), at, REQUESTS)?;
        self.story.show(&format!("{REQUESTS} × curl http://{at}/"), &tally.to_string());
        tally.all_answered()?;
        Ok(tally)
    }

    /// Kills the node that answers for `vip` and measures until another does.
    async fn kill_announcer(&self, vip: IpAddr) -> Result<NodePlan> {
        let dead = self.lab.announcer(vip).await?;
        let watch = Watch::start(&self.lab.client_netns(), vip, PROBE_EVERY);
        watch
            .next(Instant::now(), ANSWER, |mac| mac == dead.mac)
            .context("the announcer stopped by itself")?;
        let killed = Instant::now();
        self.lab.power_off(&dead.name)?;
        let claim = watch.next(killed, TAKEOVER, |mac| mac != dead.mac)?;
        let heir = self.lab.plan().node_of_mac(claim.mac).context("a MAC that is no node's answers")?;
        self.story.say(&format!(
            "{} is dead. {} answers for {vip} after {} (asked every {} ms).",
            dead.name,
            heir.name,
            seconds(claim.at - killed),
            PROBE_EVERY.as_millis()
        ));
        Ok(dead)
    }

    /// The rules no longer name the dead node's pods; then all requests are answered.
    async fn after_a_death(&self, at: SocketAddr, dead: &NodePlan) -> Result<()> {
        let gone = self.pod_addresses_on(&dead.name).await?;
        let left: Vec<String> = self.lab.node_names().into_iter().filter(|n| *n != dead.name).collect();
        self.lab.rules(&left, &[at.ip()], &gone).await?;
        self.story.say(&format!(
            "The API server has taken {}'s pod out of the endpoints, kube-proxy too.",
            dead.name
        ));
        let tally = self.request(at)?;
        ensure!(!tally.nodes().contains(&dead.name), "a dead node's pod answered");
        Ok(())
    }

    async fn only_address(&self, service: &str) -> Result<IpAddr> {
        let ips = self.lab.addresses("default", service, 1).await?;
        ips.first().copied().with_context(|| format!("{service} has no address"))
    }

    fn show_arping(&self, vip: IpAddr, leader: &NodePlan) -> Result<()> {
        let ip = vip.to_string();
        let words = ["-i", "eth0", "-c", "1", "-w", "2", ip.as_str()];
        let said = self.lab.client_netns().exec("arping", &words)?;
        self.story.show(&format!("arping {}", words.join(" ")), &said);
        ensure!(said.contains(&mac_text(leader.mac)), "arping does not see {}", mac_text(leader.mac));
        self.story.say(&format!("{} is {}.", mac_text(leader.mac), leader.name));
        Ok(())
    }

    fn show_ndisc6(&self, vip: IpAddr, leader: &NodePlan) -> Result<()> {
        let ip = vip.to_string();
        let words = ["-1", "-w", "2000", ip.as_str(), "eth0"];
        let said = self.lab.client_netns().exec("ndisc6", &words)?;
        self.story.show(&format!("ndisc6 {}", words.join(" ")), &said);
        let seen = said.to_lowercase().contains(&mac_text(leader.mac));
        ensure!(seen, "ndisc6 does not see {}", mac_text(leader.mac));
        self.story.say(&format!("{} is {}.", mac_text(leader.mac), leader.name));
        Ok(())
    }

    /// Every Service that is not of type LoadBalancer, with its version: any write would change it.
    async fn not_ours(&self) -> Result<BTreeMap<String, String>> {
        let services = Api::<Service>::all(self.lab.client().await?).list(&ListParams::default()).await?;
        let others = services
            .into_iter()
            .filter(|s| s.spec.as_ref().and_then(|spec| spec.type_.as_deref()) != Some("LoadBalancer"));
        Ok(others.map(|s| (s.name_any(), s.resource_version().unwrap_or_default())).collect())
    }

    async fn pod_addresses_on(&self, node: &str) -> Result<Vec<IpAddr>> {
        let pods = Api::<Pod>::all(self.lab.client().await?);
        let on_it = ListParams::default().fields(&format!("spec.nodeName={node}")).labels("app=sample-app");
        let pods = pods.list(&on_it).await?;
        let ips =
            pods.iter().flat_map(|p| p.status.as_ref().and_then(|s| s.pod_ips.clone()).unwrap_or_default());
        Ok(ips.filter_map(|ip| ip.ip.parse().ok()).collect())
    }
}
