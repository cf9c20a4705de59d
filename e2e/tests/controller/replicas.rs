//! Two controllers, one at work.

use crate::stage::{Stage, ingress, versions};
use nix::sys::signal::Signal;
use patina_e2e::wait::{self, Seen, secs};

#[tokio::test]
async fn another_takes_over_from_a_killed_leader_and_no_address_changes() {
    let stage = Stage::with_crds().await;
    stage.pool("default", &["10.20.0.0/24"], "").await;
    let mut first = stage.controller("ctl-1", &[]);
    first.metric_is("patina_controller_leading ", 1.0).await;
    let second = stage.controller("ctl-2", &[]);
    for n in 0..20 {
        stage.service(&format!("s{n}"), "", "").await;
    }
    for n in 0..20 {
        stage.until(&format!("s{n}"), "has an address", |s| !ingress(s).is_empty()).await;
    }
    second.metric_is("patina_controller_leading ", 0.0).await;
    let before = versions(&stage.all().await);
    first.process.kill();
    stage.service("new", "", "").await;
    wait::until("the other serves", secs(40), || async {
        let service = stage.get("new").await?;
        Ok(Seen::when(!ingress(&service).is_empty(), format!("{:?}", service.status)))
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", stage.logs()));
    second.metric_is("patina_controller_leading ", 1.0).await;
    let now = versions(&stage.all().await);
    for (name, version) in before {
        assert_eq!(now[&name], version, "{name} was written by the handover");
    }
}

#[tokio::test]
async fn a_leader_that_is_told_to_end_hands_over_at_once() {
    let stage = Stage::with_crds().await;
    stage.pool("default", &["10.20.0.0/24"], "").await;
    let mut first = stage.controller("ctl-1", &[]);
    first.metric_is("patina_controller_leading ", 1.0).await;
    let second = stage.controller("ctl-2", &[]);
    second.metric_is("patina_controller_leading ", 0.0).await;
    assert!(first.process.terminate(secs(10)), "{}", stage.logs());
    // Far less than the Lease's 15 s.
    wait::until("the other leads", secs(5), || async {
        let leads = second.metric("patina_controller_leading ").await?;
        Ok(Seen::when(leads > 0.5, leads))
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", stage.logs()));
    stage.service("new", "", "").await;
    stage.has("new", &["10.20.0.0"], "default").await;
}

/// A leader that is stopped and continued after it lost the Lease writes nothing any more.
#[tokio::test]
async fn a_leader_that_sleeps_through_its_term_stands_by_when_it_wakes() {
    let stage = Stage::with_crds().await;
    stage.pool("default", &["10.20.0.0/24"], "").await;
    let mut first = stage.controller("ctl-1", &[]);
    first.metric_is("patina_controller_leading ", 1.0).await;
    let second = stage.controller("ctl-2", &[]);
    second.metric_is("patina_controller_leading ", 0.0).await;
    first.process.signal(Signal::SIGSTOP).unwrap();
    for n in 0..10 {
        stage.service(&format!("s{n}"), "", "").await;
    }
    wait::until("the other leads", secs(40), || async {
        let leads = second.metric("patina_controller_leading ").await?;
        Ok(Seen::when(leads > 0.5, leads))
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", stage.logs()));
    for n in 0..10 {
        stage.until(&format!("s{n}"), "has an address", |s| !ingress(s).is_empty()).await;
    }
    let before = versions(&stage.all().await);
    first.process.signal(Signal::SIGCONT).unwrap();
    first.metric_is("patina_controller_leading ", 0.0).await;
    stage.service("new", "", "").await;
    stage.until("new", "has an address", |s| !ingress(s).is_empty()).await;
    let now = versions(&stage.all().await);
    for (name, version) in before {
        assert_eq!(now[&name], version, "{name} was written again");
    }
    let mut addresses: Vec<String> = stage
        .all()
        .await
        .iter()
        .flat_map(|s| ingress(s).into_iter().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    let count = addresses.len();
    addresses.sort();
    addresses.dedup();
    assert_eq!((addresses.len(), count), (11, 11));
}
