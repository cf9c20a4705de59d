//! Never twice, with real processes: controllers that are stopped at any moment and go on when another leads, seen by
//! somebody who watches every change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use crate::stage::{Controller, Stage, ingress, load_balancer};
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::Service;
use kube::api::{ListParams, Patch, PatchParams, WatchEvent, WatchParams};
use kube::{Api, ResourceExt};
use nix::sys::signal::Signal;
use patina_e2e::wait::{self, Seen, secs};

/// So that a round takes seconds.
const LEASE: &[&str] = &["--lease-duration=4"];
const LEADING: &str = "patina_controller_leading ";
const ROUNDS: usize = 6;
const BURST: usize = 16;

/// Sees each version of each Service.
#[derive(Clone, Default)]
struct Witness(Arc<Mutex<SeenSoFar>>);

#[derive(Default)]
struct SeenSoFar {
    shown: BTreeMap<String, Vec<String>>,
    twice: Vec<String>,
    changes: usize,
    ended: Option<String>,
}

impl Witness {
    async fn start(stage: &Stage) -> Self {
        let witness = Self::default();
        let api: Api<Service> = Api::all(stage.client());
        let list = api.list(&ListParams::default()).await.unwrap();
        for service in &list.items {
            witness.sees(service, false);
        }
        let (version, mine) = (list.metadata.resource_version.unwrap(), witness.clone());
        tokio::spawn(async move {
            let params = WatchParams::default().timeout(290);
            let result = async {
                let mut events = std::pin::pin!(api.watch(&params, &version).await?);
                while let Some(event) = events.try_next().await? {
                    match event {
                        WatchEvent::Added(service) | WatchEvent::Modified(service) => {
                            mine.sees(&service, false)
                        }
                        WatchEvent::Deleted(service) => mine.sees(&service, true),
                        WatchEvent::Bookmark(_) => {}
                        WatchEvent::Error(status) => return Err(kube::Error::Api(status)),
                    }
                }
                Ok(())
            };
            let result: kube::Result<()> = result.await;
            mine.0.lock().unwrap().ended = Some(format!("{result:?}"));
        });
        witness
    }

    fn sees(&self, service: &Service, gone: bool) {
        let mut seen = self.0.lock().unwrap();
        seen.changes += 1;
        let name = service.name_any();
        if gone {
            seen.shown.remove(&name);
            return;
        }
        let addresses: Vec<String> = ingress(service).into_iter().map(str::to_owned).collect();
        let twice: Vec<String> = seen
            .shown
            .iter()
            .filter(|(other, theirs)| **other != name && theirs.iter().any(|ip| addresses.contains(ip)))
            .map(|(other, theirs)| format!("{name} {addresses:?} and {other} {theirs:?}"))
            .collect();
        seen.twice.extend(twice);
        seen.shown.insert(name, addresses);
    }

    fn served(&self) -> usize {
        self.0.lock().unwrap().shown.values().filter(|addresses| !addresses.is_empty()).count()
    }

    /// Never, up to now.
    fn saw_nothing_twice(&self) {
        let seen = self.0.lock().unwrap();
        assert_eq!(seen.twice, [] as [String; 0]);
        assert_eq!(seen.ended, None, "the witness has to see it all");
        assert!(seen.changes > 0);
    }
}

async fn leads(controller: &Controller, yes: bool) {
    let expected = if yes { 1.0 } else { 0.0 };
    wait::until("the right one leads", secs(30), || async {
        let value = controller.metric(LEADING).await?;
        Ok(Seen::when((value - expected).abs() < 0.5, value))
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", controller.process.log_tail(40)));
}

async fn all_served(stage: &Stage, witness: &Witness, count: usize) {
    wait::until("everybody has an address", secs(40), || async {
        let (served, all) = (witness.served(), stage.all().await.len());
        // The API server's own Service is one of them.
        Ok(Seen::when(served == count && all == count + 1, (served, all)))
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", stage.logs()));
}

#[tokio::test]
async fn leaders_that_are_stopped_in_the_middle_of_their_work_give_nothing_twice() {
    let seed = std::env::var("PATINA_SEED").map_or(20_261_121, |text| text.parse().unwrap());
    println!("PATINA_SEED={seed}");
    let mut dice: u64 = seed;
    let mut below = |n: usize| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(dice >> 33).unwrap() % n
    };
    let stage = Stage::with_crds().await;
    // Few more than are needed: whoever is given one that somebody else has gets it at once.
    stage.pool("default", &["10.20.0.1-10.20.0.52"], "").await;
    let mut controllers = [stage.controller("ctl-1", LEASE), stage.controller("ctl-2", LEASE)];
    let mut leader = usize::from(
        wait::until("one leads", secs(20), || async {
            let first = controllers[0].metric(LEADING).await.unwrap_or(0.0);
            let second = controllers[1].metric(LEADING).await.unwrap_or(0.0);
            Ok(Seen::when(first + second > 0.5, second > 0.5))
        })
        .await
        .unwrap(),
    );
    let witness = Witness::start(&stage).await;
    let mut alive: BTreeSet<String> = BTreeSet::new();
    for round in 0..ROUNDS {
        // Some go, more come, and in the middle of that the leader stops.
        let gone: Vec<String> = alive.iter().filter(|_| below(3) == 0).cloned().collect();
        for name in &gone {
            alive.remove(name);
            stage.plane.kubectl(&["delete", "service", name, "--wait=false"]).await.unwrap();
        }
        let room = 48 - alive.len();
        let names: Vec<String> = (0..BURST.min(room)).map(|n| format!("r{round}-{n}")).collect();
        let at = witness.served() + below(BURST);
        let burst: String = names.iter().map(|name| load_balancer(name, "", "") + "---\n").collect();
        let (applied, ()) = tokio::join!(stage.plane.apply(&burst), async {
            // A moment in the work: so many are served. If it never comes, all are, which is a moment too.
            let _ =
                wait::until("the moment", secs(3), || async { Ok(Seen::when(witness.served() >= at, ())) })
                    .await;
            controllers[leader].process.signal(Signal::SIGSTOP).unwrap();
        });
        applied.unwrap();
        alive.extend(names);
        let other = 1 - leader;
        leads(&controllers[other], true).await;
        // It goes on while the other works.
        controllers[leader].process.signal(Signal::SIGCONT).unwrap();
        all_served(&stage, &witness, alive.len()).await;
        leads(&controllers[leader], false).await;
        witness.saw_nothing_twice();
        leader = other;
    }
}

/// What the fence is for, made by hand: a patch of a leader that died arrives when the next one has taken over.
#[tokio::test]
async fn a_patch_that_arrives_after_a_takeover_meets_another_version() {
    let stage = Stage::with_crds().await;
    stage.pool("default", &["10.20.0.1/32"], "").await;
    let mut first = stage.controller("ctl-1", LEASE);
    stage.service("holder", "", "").await;
    stage.has("holder", &["10.20.0.1"], "default").await;
    stage.service("waits", "", "").await;
    stage.waits("waits", "PoolExhausted").await;
    // What the first controller would send had the holder gone a moment before it died.
    let old = stage.get("waits").await.unwrap();
    let late = serde_json::json!({
        "metadata": { "uid": old.uid(), "resourceVersion": old.resource_version() },
        "status": { "loadBalancer": { "ingress": [{ "ip": "10.20.0.1", "ipMode": "VIP" }] } },
    });
    let holder = stage.get("holder").await.unwrap().resource_version();
    first.process.kill();
    let second = stage.controller("ctl-2", LEASE);
    second.metric_is("patina_controller_services_fenced_total ", 1.0).await;
    leads(&second, true).await;
    stage
        .until("waits", "was written by the new leader", |service| {
            service.resource_version() != old.resource_version()
        })
        .await;
    let api: Api<Service> = Api::namespaced(stage.client(), "default");
    let answer = api.patch_status("waits", &PatchParams::default(), &Patch::Merge(late)).await;
    match answer {
        Err(kube::Error::Api(status)) => assert_eq!(status.code, 409, "{status:?}"),
        other => panic!("the late patch should meet another version: {other:?}"),
    }
    // Who holds an address is not written by a takeover, and who waits says why again.
    stage.waits("waits", "PoolExhausted").await;
    assert_eq!(stage.get("holder").await.unwrap().resource_version(), holder);
    stage.plane.kubectl(&["delete", "service", "holder"]).await.unwrap();
    stage.has("waits", &["10.20.0.1"], "default").await;
}

/// A leader that ends properly leaves nothing under way, so its successor fences nobody.
#[tokio::test]
async fn after_a_proper_end_nobody_is_written() {
    let stage = Stage::with_crds().await;
    stage.pool("default", &["10.20.0.1/32"], "").await;
    let mut first = stage.controller("ctl-1", LEASE);
    stage.service("holder", "", "").await;
    stage.has("holder", &["10.20.0.1"], "default").await;
    stage.service("waits", "", "").await;
    stage.waits("waits", "PoolExhausted").await;
    let before = stage.get("waits").await.unwrap().resource_version();
    assert!(first.process.terminate(secs(10)));
    let second = stage.controller("ctl-2", LEASE);
    leads(&second, true).await;
    second.readyz_says("ok").await;
    second.metric_is("patina_controller_services_waiting{reason=\"PoolExhausted\"} ", 1.0).await;
    assert!(second.metric("patina_controller_services_fenced_total ").await.unwrap() < 0.5);
    assert_eq!(stage.get("waits").await.unwrap().resource_version(), before);
}

/// Somebody deletes the Lease: the next one does not start beside the one that has not noticed yet.
#[tokio::test]
async fn a_lease_that_is_deleted_makes_nobody_start_early() {
    let stage = Stage::with_crds().await;
    stage.pool("default", &["10.20.0.1-10.20.0.9"], "").await;
    let mut first = stage.controller("ctl-1", LEASE);
    stage.service("a", "", "").await;
    stage.has("a", &["10.20.0.1"], "default").await;
    first.process.signal(Signal::SIGSTOP).unwrap();
    let namespace = crate::stage::NAMESPACE;
    stage.plane.kubectl(&["delete", "lease", "patina-controller", "-n", namespace]).await.unwrap();
    stage.service("b", "", "").await;
    let second = stage.controller("ctl-2", LEASE);
    second.readyz_says("the Lease was deleted").await;
    assert_eq!(ingress(&stage.get("b").await.unwrap()), [] as [&str; 0]);
    stage.has("b", &["10.20.0.2"], "default").await;
    first.process.signal(Signal::SIGCONT).unwrap();
    leads(&first, false).await;
    leads(&second, true).await;
}
