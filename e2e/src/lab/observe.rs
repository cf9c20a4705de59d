//! What one waits for in a lab, seen from outside: who announces, who is back.

use std::net::IpAddr;

use anyhow::Result;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};

use super::plan::NodePlan;
use super::topology::mac_text;
use super::view::{DEADLINE, View, pod_ready, pod_words};
use crate::neighbour::{ANSWER, who_has};
use crate::wait::{self, Seen};

impl View {
    /// Waits until exactly one node answers the client for `ip`.
    ///
    /// # Errors
    /// Nobody or several still answer at the deadline, or something that is no node does.
    pub async fn announcer(&self, ip: IpAddr) -> Result<NodePlan> {
        self.announced(ip, "exactly one node", |_| true).await
    }

    /// Waits until `node`, and nobody else, answers the client for `ip`.
    ///
    /// # Errors
    /// The deadline passed; the text says who answers instead.
    pub async fn announced_by(&self, ip: IpAddr, node: &str) -> Result<()> {
        self.announced(ip, node, |seen| seen.name == node).await.map(drop)
    }

    /// Waits until one node, but not `node`, answers the client for `ip`.
    ///
    /// # Errors
    /// As [`View::announced_by`].
    pub async fn announced_by_other(&self, ip: IpAddr, node: &str) -> Result<NodePlan> {
        self.announced(ip, &format!("another node than {node}"), |seen| seen.name != node).await
    }

    async fn announced(&self, ip: IpAddr, who: &str, wanted: impl Fn(&NodePlan) -> bool) -> Result<NodePlan> {
        let client = self.client_netns();
        wait::until(&format!("{who} answers for {ip}"), DEADLINE, || async {
            let claims = who_has(&client, ip, ANSWER)?;
            let names: Vec<String> = claims.iter().map(|c| self.name_of(c.mac)).collect();
            let only = match claims.as_slice() {
                [one] => self.plan().node_of_mac(one.mac).filter(|node| wanted(node)),
                _ => None,
            };
            Ok(match only {
                Some(node) => Seen::Done(node.clone()),
                None => Seen::Not(format!("answers by {names:?}")),
            })
        })
        .await
    }

    fn name_of(&self, mac: [u8; 6]) -> String {
        self.plan().node_of_mac(mac).map_or_else(|| mac_text(mac), |node| node.name.clone())
    }

    /// Waits until nobody answers the client for `ip`.
    ///
    /// # Errors
    /// Somebody still does at the deadline.
    pub async fn silence(&self, ip: IpAddr) -> Result<()> {
        let client = self.client_netns();
        wait::until(&format!("nobody answers for {ip}"), DEADLINE, || async {
            let claims = who_has(&client, ip, ANSWER)?;
            let names: Vec<String> = claims.iter().map(|c| self.name_of(c.mac)).collect();
            Ok(if names.is_empty() { Seen::Done(()) } else { Seen::Not(format!("answers by {names:?}")) })
        })
        .await
    }

    /// Waits until a node that was switched on reports, and all its pods are ready.
    ///
    /// # Errors
    /// The deadline passed; the text says what is not ready.
    pub async fn node_is_back(&self, node: &str) -> Result<()> {
        let client = self.client().await?;
        let (nodes, pods) = (Api::<Node>::all(client.clone()), Api::<Pod>::all(client));
        wait::until(&format!("{node} and its pods are ready"), DEADLINE, || async {
            let ready = crate::kubelet::is_ready(&nodes.get(node).await?);
            let on_it = ListParams::default().fields(&format!("spec.nodeName={node}"));
            let waiting: Vec<String> =
                pods.list(&on_it).await?.iter().filter(|p| !pod_ready(p)).map(|p| p.name_any()).collect();
            let seen = format!("node ready: {ready}; pods not ready: {waiting:?}");
            Ok(if ready && waiting.is_empty() { Seen::Done(()) } else { Seen::Not(seen) })
        })
        .await
    }

    /// Waits until exactly `count` pods with these labels are ready and no other is left, and returns them.
    ///
    /// # Errors
    /// The deadline passed; the text has the pods and their states.
    pub async fn pods(&self, namespace: &str, labels: &str, count: usize) -> Result<Vec<Pod>> {
        let pods = Api::<Pod>::namespaced(self.client().await?, namespace);
        let with_labels = ListParams::default().labels(labels);
        wait::until(&format!("{count} pods with {labels} are ready"), DEADLINE, || async {
            let all = pods.list(&with_labels).await?.items;
            let good = all.len() == count
                && all.iter().all(|p| pod_ready(p) && p.metadata.deletion_timestamp.is_none());
            let seen: Vec<String> =
                all.iter().map(|p| format!("{}: {}", p.name_any(), pod_words(p))).collect();
            Ok(if good { Seen::Done(all) } else { Seen::Not(format!("{seen:?}")) })
        })
        .await
    }

    /// Every node's name.
    #[must_use]
    pub fn node_names(&self) -> Vec<String> {
        self.plan().nodes.iter().map(|n| n.name.clone()).collect()
    }
}
