//! Services in a lab of three nodes, seen by a client beside the cluster: who announces, who answers, what is kept.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failed expectation is a failed test

mod lab_harness;

use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab_harness::wait_for;
use patina_e2e::client::{Tally, requests};
use patina_e2e::lab::plan::{CLIENT_V4, CLIENT_V6};
use patina_e2e::lab::{Lab, Options};
use patina_e2e::neighbour::Watch;

fn main() -> ExitCode {
    lab_harness::run(
        Options::default(),
        prepare,
        &[
            ("a_service_answers_on_its_ipv4_address", ipv4),
            ("a_service_answers_on_its_ipv6_address", ipv6),
            ("a_dual_stack_service_answers_on_both_addresses_from_one_node", dual_stack),
            ("an_address_is_answered_for_only_while_there_are_endpoints", endpoints_come_and_go),
            ("local_traffic_goes_to_a_node_with_an_endpoint_and_keeps_the_clients_address", local_policy),
            ("a_node_selector_of_the_advertisement_says_which_node_announces", node_selector),
            ("an_interface_that_no_node_has_announces_nothing", interfaces),
            ("the_exclude_label_moves_the_announcement_and_back", exclude_label),
            ("a_node_without_network_does_not_announce", network_unavailable),
            ("the_address_outlives_the_leading_controller", controller_dies),
            ("another_node_takes_over_when_the_announcing_speaker_is_deleted", speaker_deleted),
            ("another_node_takes_over_in_both_families_when_the_announcing_node_dies", node_dies),
        ],
    )
}

const PODS: &str = include_str!("../tutorials/sample-app.yaml");
const POOL: &str = "
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: lab, namespace: metallb-system}
spec:
  addresses: [172.25.7.100-172.25.7.199, 'fd00:25:7::100-fd00:25:7::1ff']
---
apiVersion: metallb.io/v1beta1
kind: L2Advertisement
metadata: {name: lab, namespace: metallb-system}
spec: {ipAddressPools: [lab]}
---
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: picky, namespace: metallb-system}
spec:
  addresses: [172.25.7.200-172.25.7.209]
  autoAssign: false
";

fn prepare(lab: &Lab) -> Result<()> {
    let kubectl = lab.kubectl();
    kubectl.apply(POOL)?;
    kubectl.apply(PODS)?;
    wait_for(lab.pods("default", "app=sample-app", 3)).map(drop)
}

/// A Service of the sample application, with `more` lines in its spec.
fn service(lab: &Lab, name: &str, more: &str) -> Result<()> {
    let spec = more.lines().map(|line| format!("  {}\n", line.trim_end())).collect::<String>();
    apply_service(lab, name, "{}", &spec)
}

fn apply_service(lab: &Lab, name: &str, annotations: &str, spec: &str) -> Result<()> {
    let yaml = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, annotations: {annotations}}}\nspec:\n  type: LoadBalancer\n  \
         ports: [{{name: http, port: 80, targetPort: http}}]\n  selector: {{app: sample-app}}\n{spec}"
    );
    lab.kubectl().apply(&yaml).map(drop)
}

fn remove(lab: &Lab, names: &[&str]) -> Result<()> {
    lab.kubectl().run(&[&["delete", "svc", "--wait=false"], names].concat()).map(drop)
}

/// The only address of a Service.
fn address(lab: &Lab, name: &str) -> Result<IpAddr> {
    let ips = wait_for(lab.addresses("default", name, 1))?;
    ips.first().copied().context("no address")
}

/// 20 requests that are all answered, once every kube-proxy knows the address.
fn ask(lab: &Lab, vip: IpAddr) -> Result<Tally> {
    wait_for(lab.rules(&lab.node_names(), &[vip], &[]))?;
    let tally = requests(&lab.client_netns(), SocketAddr::new(vip, 80), 20)?;
    tally.all_answered()?;
    Ok(tally)
}

fn ipv4(lab: &Lab) -> Result<()> {
    service(lab, "four", "")?;
    let vip = address(lab, "four")?;
    ensure!(vip.is_ipv4(), "{vip}");
    wait_for(lab.announcer(vip))?;
    let tally = ask(lab, vip)?;
    ensure!(tally.nodes().len() > 1, "one pod has all requests: {tally}");
    remove(lab, &["four"])?;
    wait_for(lab.silence(vip))
}

fn ipv6(lab: &Lab) -> Result<()> {
    service(lab, "six", "ipFamilies: [IPv6]\nipFamilyPolicy: SingleStack")?;
    let vip = address(lab, "six")?;
    ensure!(vip.is_ipv6(), "{vip}");
    wait_for(lab.announcer(vip))?;
    ask(lab, vip)?;
    remove(lab, &["six"])?;
    wait_for(lab.silence(vip))
}

fn dual_stack(lab: &Lab) -> Result<()> {
    service(lab, "dual", "ipFamilyPolicy: RequireDualStack")?;
    let ips = wait_for(lab.addresses("default", "dual", 2))?;
    let mut announcers = Vec::new();
    for vip in &ips {
        announcers.push(wait_for(lab.announcer(*vip))?.name);
        ask(lab, *vip)?;
    }
    announcers.dedup();
    ensure!(announcers.len() == 1, "{ips:?} are announced by {announcers:?}");
    remove(lab, &["dual"])
}

fn endpoints_come_and_go(lab: &Lab) -> Result<()> {
    let name = "empty";
    lab.kubectl().apply(
        "apiVersion: v1\nkind: Service\nmetadata: {name: empty}\nspec:\n  type: LoadBalancer\n  ports: [{port: 80}]\n  \
         selector: {app: nobody}\n",
    )?;
    let vip = address(lab, name)?;
    wait_for(lab.silence(vip))?;
    let patch = r#"{"spec":{"selector":{"app":"sample-app"}}}"#;
    lab.kubectl().run(&["patch", "svc", name, "-p", patch])?;
    wait_for(lab.announcer(vip))?;
    ask(lab, vip)?;
    remove(lab, &[name])?;
    wait_for(lab.silence(vip))
}

fn local_policy(lab: &Lab) -> Result<()> {
    let kubectl = lab.kubectl();
    let single = |node: &str| {
        PODS.replace("sample-app", "single")
            .replace("replicas: 3", "replicas: 1\n  strategy: {type: Recreate}")
            .replace(
                "      containers:",
                &format!("      nodeSelector: {{kubernetes.io/hostname: {node}}}\n      containers:"),
            )
    };
    service(lab, "local", "externalTrafficPolicy: Local\nipFamilyPolicy: RequireDualStack")?;
    kubectl.run(&["patch", "svc", "local", "-p", r#"{"spec":{"selector":{"app":"single"}}}"#])?;
    let ips = wait_for(lab.addresses("default", "local", 2))?;
    for node in ["node2", "node1"] {
        kubectl.apply(&single(node))?;
        for vip in &ips {
            wait_for(lab.announced_by(*vip, node))?;
        }
        wait_for(lab.endpoints("default", "local", 1))?;
        for vip in &ips {
            let pod = wait_for(lab.pods("default", "app=single", 1))?;
            let pod_ips =
                pod.iter().flat_map(|p| p.status.clone().unwrap().pod_ips.unwrap()).map(|i| i.ip.parse());
            let pod_ips: Vec<IpAddr> = pod_ips.collect::<Result<_, _>>()?;
            wait_for(lab.rules(&[node.to_owned()], &pod_ips, &[]))?;
            let tally = ask(lab, *vip)?;
            ensure!(tally.nodes() == [node], "{tally}");
            let expected: IpAddr = if vip.is_ipv4() { CLIENT_V4.into() } else { CLIENT_V6.into() };
            ensure!(
                tally.answers.iter().all(|a| a.client == expected),
                "the pod saw another client: {:?}",
                tally.answers
            );
        }
    }
    kubectl.run(&["delete", "deployment", "single", "--wait=false"])?;
    for vip in &ips {
        wait_for(lab.silence(*vip))?;
    }
    remove(lab, &["local"])
}

/// The pool `picky` has an advertisement of its own with `spec`.
fn picky(lab: &Lab, spec: &str) -> Result<()> {
    let yaml = format!(
        "apiVersion: metallb.io/v1beta1\nkind: L2Advertisement\nmetadata: {{name: picky, namespace: metallb-system}}\n\
         spec:\n  ipAddressPools: [picky]\n  {spec}\n"
    );
    lab.kubectl().apply(&yaml).map(drop)
}

fn picky_service(lab: &Lab, name: &str) -> Result<IpAddr> {
    apply_service(lab, name, "{metallb.io/address-pool: picky}", "")?;
    address(lab, name)
}

fn node_selector(lab: &Lab) -> Result<()> {
    let vip = picky_service(lab, "selected")?;
    wait_for(lab.silence(vip)).context("no advertisement covers it yet")?;
    for node in ["node3", "node1"] {
        picky(lab, &format!("nodeSelectors: [{{matchLabels: {{kubernetes.io/hostname: {node}}}}}]"))?;
        wait_for(lab.announced_by(vip, node))?;
    }
    ask(lab, vip)?;
    remove(lab, &["selected"])
}

fn interfaces(lab: &Lab) -> Result<()> {
    picky(lab, "interfaces: [eth9]\n  nodeSelectors: []")?;
    let vip = picky_service(lab, "wired")?;
    wait_for(lab.silence(vip))?;
    picky(lab, "interfaces: [eth9, eth0]\n  nodeSelectors: []")?;
    wait_for(lab.announcer(vip))?;
    ask(lab, vip)?;
    remove(lab, &["wired"])?;
    lab.kubectl().run(&["delete", "l2advertisement", "picky", "-n", "metallb-system"]).map(drop)
}

fn exclude_label(lab: &Lab) -> Result<()> {
    const LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
    service(lab, "moved", "")?;
    let vip = address(lab, "moved")?;
    let first = wait_for(lab.announcer(vip))?.name;
    lab.kubectl().run(&["label", "node", &first, &format!("{LABEL}=")])?;
    wait_for(lab.announced_by_other(vip, &first))?;
    ask(lab, vip)?;
    lab.kubectl().run(&["label", "node", &first, &format!("{LABEL}-")])?;
    wait_for(lab.announced_by(vip, &first))?;
    remove(lab, &["moved"])
}

fn network_unavailable(lab: &Lab) -> Result<()> {
    service(lab, "cut", "")?;
    let vip = address(lab, "cut")?;
    let first = wait_for(lab.announcer(vip))?.name;
    let says = |status: &str| {
        let condition = format!(r#"{{"type":"NetworkUnavailable","status":"{status}","reason":"Lab"}}"#);
        let patch = format!(r#"{{"status":{{"conditions":[{condition}]}}}}"#);
        lab.kubectl().run(&[
            "patch",
            "node",
            &first,
            "--subresource=status",
            "--type=strategic",
            "-p",
            &patch,
        ])
    };
    says("True")?;
    wait_for(lab.announced_by_other(vip, &first))?;
    says("False")?;
    wait_for(lab.announced_by(vip, &first))?;
    remove(lab, &["cut"])
}

fn controller_dies(lab: &Lab) -> Result<()> {
    let kubectl = lab.kubectl();
    service(lab, "kept", "")?;
    let before = address(lab, "kept")?;
    let lease = ["get", "lease", "-n", "metallb-system", "-o", "jsonpath={.items[0].spec.holderIdentity}"];
    let leader = kubectl.run(&lease)?;
    kubectl.run(&["delete", "pod", "-n", "metallb-system", &leader, "--grace-period=0", "--force"])?;
    // The next leader gives a new Service another address, and takes none away.
    service(lab, "later", "")?;
    let later = address(lab, "later")?;
    ensure!(later != before, "{later} was given twice");
    ensure!(address(lab, "kept")? == before, "the address was lost");
    wait_for(lab.announcer(before))?;
    remove(lab, &["kept", "later"])?;
    wait_for(lab.pods("metallb-system", "app.kubernetes.io/component=controller", 2)).map(drop)
}

fn speaker_deleted(lab: &Lab) -> Result<()> {
    let kubectl = lab.kubectl();
    service(lab, "spoken", "")?;
    let vip = address(lab, "spoken")?;
    let first = wait_for(lab.announcer(vip))?.name;
    let on_it = format!("--field-selector=spec.nodeName={first}");
    let labels = "-lapp.kubernetes.io/component=speaker";
    let watch = Watch::start(&lab.client_netns(), vip, Duration::from_millis(10));
    let mac = lab.plan().node(&first)?.mac;
    let began = Instant::now();
    kubectl.run(&["delete", "pod", "-n", "metallb-system", labels, &on_it, "--wait=false"])?;
    watch.next(began, Duration::from_secs(15), |seen| seen != mac).context("nobody took over")?;
    drop(watch);
    // The DaemonSet replaces it, and the address goes back.
    wait_for(lab.pods("metallb-system", "app.kubernetes.io/component=speaker", 3))?;
    wait_for(lab.announced_by(vip, &first))?;
    ask(lab, vip)?;
    remove(lab, &["spoken"])
}

fn node_dies(lab: &Lab) -> Result<()> {
    service(lab, "survivor", "ipFamilyPolicy: RequireDualStack")?;
    let ips = wait_for(lab.addresses("default", "survivor", 2))?;
    let first = wait_for(lab.announcer(ips[0]))?;
    for vip in &ips {
        wait_for(lab.announced_by(*vip, &first.name))?;
    }
    let gone = wait_for(lab.pods("default", "app=sample-app", 3))?;
    let on_it = gone.iter().filter(|p| p.spec.as_ref().unwrap().node_name.as_ref() == Some(&first.name));
    let gone: Vec<IpAddr> = on_it
        .flat_map(|p| p.status.clone().unwrap().pod_ips.unwrap())
        .map(|i| i.ip.parse())
        .collect::<Result<_, _>>()?;
    lab.power_off(&first.name)?;
    for vip in &ips {
        wait_for(lab.announced_by_other(*vip, &first.name))?;
    }
    let left: Vec<String> = lab.node_names().into_iter().filter(|n| *n != first.name).collect();
    wait_for(lab.rules(&left, &[], &gone))?;
    for vip in &ips {
        let tally = requests(&lab.client_netns(), SocketAddr::new(*vip, 80), 20)?;
        tally.all_answered()?;
        ensure!(!tally.nodes().contains(&first.name), "a dead node's pod answered: {tally}");
    }
    // It comes back, and announces again: the order of candidates is a function of who is alive.
    lab.power_on(&first.name)?;
    wait_for(lab.node_is_back(&first.name))?;
    for vip in &ips {
        wait_for(lab.announced_by(*vip, &first.name))?;
    }
    remove(lab, &["survivor"])
}
