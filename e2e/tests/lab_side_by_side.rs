//! Labs beside each other and beside the machine: none disturbs another, and what a crash leaves the next run cleans.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failed expectation is a failed test

use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use anyhow::Result;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use patina_e2e::client::requests;
use patina_e2e::lab::view::{View, is_alive};
use patina_e2e::lab::{Lab, Options};
use patina_e2e::wait::{self, Seen, secs};

const POOL_AND_SERVICE: &str = "
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: only, namespace: metallb-system}
spec: {addresses: [172.25.7.100/32]}
---
apiVersion: metallb.io/v1beta1
kind: L2Advertisement
metadata: {name: only, namespace: metallb-system}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: LoadBalancer
  ports: [{port: 80}]
  selector: {app: sample-app}
";

#[test]
fn two_labs_use_the_same_addresses_and_the_crash_of_one_is_cleaned_up_while_the_other_serves() {
    let before = machine();
    // One in this process, one as `lab up` leaves it running.
    let crashing = std::thread::spawn(|| lab(&["up", "--name", "crash", "--nodes", "1"]));
    let ours = Lab::up(Options { nodes: 1, ..Options::default() }, |line| eprintln!("{line}")).unwrap();
    let said = crashing.join().unwrap();
    assert!(said.contains("The lab crash is up"), "{said}");
    let theirs = View::attach("crash").unwrap();
    assert_eq!(machine(), before, "a lab changed the machine's own network");

    let pods = [serve(&ours).unwrap(), serve(&theirs).unwrap()];
    assert_ne!(pods[0], pods[1], "one pod answered in both labs");

    let owner: i32 = fs::read_to_string(theirs.dir().join("owner")).unwrap().trim().parse().unwrap();
    let pids = theirs.processes();
    assert!(pids.len() >= 8, "etcd, API server, controller-manager, kube-proxy, tcpdump and pods: {pids:?}");
    kill(Pid::from_raw(owner), Signal::SIGKILL).unwrap();
    wait::until_blocking("every process of the crashed lab is dead", secs(10), || {
        let alive: Vec<i32> = pids.iter().copied().filter(|pid| is_alive(*pid)).collect();
        Ok(if alive.is_empty() { Seen::Done(()) } else { Seen::Not(format!("{alive:?}")) })
    })
    .unwrap();

    // Any next run cleans; `down` is one.
    let said = lab(&["down", "--name", "crash"]);
    assert!(said.contains("cleaning up after the run crash"), "{said}");
    assert!(!theirs.dir().exists(), "{} is left", theirs.dir().display());
    assert!(theirs.namespaces().is_empty(), "{:?}", theirs.namespaces());
    assert!(View::attach("crash").is_err());

    assert_eq!(serve(&ours).unwrap(), pods[0], "the other lab was disturbed");
    let (view, pids) = (View::clone(&ours), ours.processes());
    ours.down();
    assert!(!view.dir().exists(), "{} is left", view.dir().display());
    assert!(view.namespaces().is_empty(), "{:?}", view.namespaces());
    assert!(!pids.iter().any(|pid| is_alive(*pid)), "processes are left");
    assert_eq!(machine(), before, "a lab left something in the machine's own network");
}

#[test]
fn a_lab_of_that_name_that_runs_is_not_started_again_and_its_commands_teach() {
    let said = lab(&["up", "--name", "twice", "--nodes", "1", "--bare"]);
    assert!(said.contains("The lab twice is up"), "{said}");
    let again = lab(&["up", "--name", "twice", "--bare"]);
    assert!(again.contains("a lab named twice is running"), "{again}");
    let status = lab(&["status", "--name", "twice", "-o", "json"]);
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status[0]["nodes"][0]["name"], "node1");
    assert_eq!(status[0]["nodes"][0]["ready"], true);
    let pinged = lab(&["exec", "--name", "twice", "client", "--", "ping", "-c1", "-W2", "172.25.7.11"]);
    assert!(pinged.contains("1 received"), "{pinged}");
    let wrong = lab(&["exec", "--name", "twice", "node7", "--", "true"]);
    assert!(wrong.contains("it has client, net, node1"), "{wrong}");
    let nodes = lab(&["kubectl", "--name", "twice", "--", "get", "nodes"]);
    assert!(nodes.contains("node1"), "{nodes}");
    assert!(lab(&["down", "--name", "twice"]).contains("the lab twice is down"));
    assert!(lab(&["status", "--name", "twice"]).contains("no lab"));
}

/// The pod that answers for the lab's only address.
fn serve(lab: &View) -> Result<String> {
    lab.kubectl()
        .apply(&include_str!("../tutorials/sample-app.yaml").replace("replicas: 3", "replicas: 1"))?;
    lab.kubectl().apply(POOL_AND_SERVICE)?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let vip = lab.addresses("default", "web", 1).await?[0];
        lab.announcer(vip).await?;
        lab.endpoints("default", "web", 1).await?;
        lab.rules(&lab.node_names(), &[vip], &[]).await?;
        let tally = requests(&lab.client_netns(), SocketAddr::new(vip, 80), 5)?;
        tally.all_answered()?;
        Ok(tally.answers[0].pod.clone())
    })
}

/// Everything that `lab ARGS` printed.
fn lab(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_lab")).args(args).output().unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

/// Links, addresses, routes and rules of the machine itself.
fn machine() -> String {
    let show = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    [
        show("ip", &["-o", "link"]),
        show("ip", &["route", "show", "table", "all"]),
        show("nft", &["list", "ruleset"]),
    ]
    .concat()
}
