//! What is kept of what people see: as the decision task and the writer of status objects keep it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::runtime::watcher::Config as Scope;
use kube::{Api, Client};
use patina_crds::types::ServiceL2Status;
use patina_runtime::tasks::Tasks;
use patina_runtime::watch::Watched;
use patina_speaker::metrics::{Announced, L2Metrics};
use patina_speaker::status::{L2, ShownL2, StatusRow, Written};
use patina_speaker::watch::words::Words;
use patina_speaker_core::intent::Intent;
use patina_speaker_core::view::ServiceId;
use prometheus::Registry;
use tokio::sync::Notify;

/// Only held.
#[expect(dead_code, reason = "what it costs to hold them is counted")]
pub(crate) struct Shown {
    wanted: BTreeMap<ServiceId, ShownL2>,
    written: Written<L2>,
    announced: Announced,
    metrics: L2Metrics,
}

impl Shown {
    pub(crate) async fn new(client: &Client, intent: &Intent, bell: &Arc<Notify>, tasks: &mut Tasks) -> Self {
        let registry = Registry::new();
        let mut announced = Announced::register(&registry, "n01").unwrap();
        let metrics = L2Metrics::register(&registry).unwrap();
        let (mut wanted, mut held) = (Vec::new(), Vec::new());
        let interfaces = Arc::new(BTreeSet::from(["eth0".to_owned()]));
        for (ip, announcement) in intent.l2.iter().filter(|(_, announcement)| announcement.leads) {
            metrics.gratuitous(*ip);
            for id in &announcement.services {
                held.push((id.clone(), *ip));
                let from = Some(Arc::clone(&announcement.order[0]));
                let interfaces = Arc::clone(&interfaces);
                let shown = ShownL2 { interfaces, since: Timestamp::now(), cause: "speakerDied", from };
                wanted.push((id.clone(), shown));
            }
        }
        announced.set(held.into_iter().collect());
        let wanted = wanted.into_iter().collect();
        let mut words = Words::default();
        let row = move |object: ServiceL2Status| StatusRow::of(&object, &mut words);
        let api = Api::namespaced(client.clone(), "patina-system");
        let written: Written<L2> = Watched::start_as(api, Scope::default(), row, Arc::clone(bell), tasks);
        let synced = async {
            while !written.synced() {
                bell.notified().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), synced).await.unwrap();
        Self { wanted, written, announced, metrics }
    }
}
