//! The lab's wires: a bridge, nodes and a client on it, routes between the nodes' pod ranges, and the settings of
//! each namespace. Everything is done inside the lab's namespaces; the machine's own network is not touched.

use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::plan::{API_V4, API_V6, CLIENT_V4, CLIENT_V6, NodePlan, POD_CIDRS, Plan};
use crate::netns::Netns;
use crate::rundir::RunDir;

/// Makes all namespaces of the plan and connects them.
///
/// # Errors
/// Not root, a tool that is missing (iproute2, nftables), or a kernel that lacks a part; the text has the tool's
/// words. What was made belongs to the run and goes with it.
pub fn build(run: &RunDir, plan: &Plan) -> Result<()> {
    let net = Netns::create(run, "net")?;
    sysctls(&net, &[])?;
    batch(
        &net,
        &[
            // A learning switch that forwards at once: no spanning tree, and no snooping that would hold back
            // neighbour solicitations of groups that it has not seen.
            "link add br0 type bridge forward_delay 0 stp_state 0 mcast_snooping 0".into(),
            format!("addr add {API_V4}/24 dev br0"),
            format!("addr add {API_V6}/64 dev br0 nodad"),
            "link set br0 up".into(),
        ],
    )?;
    let client = Netns::create(run, "client")?;
    sysctls(&client, &[])?;
    plug(
        &net,
        &client,
        "client",
        [0x02, 0x25, 0x07, 0, 0, 0x05],
        &[CLIENT_V4.to_string(), CLIENT_V6.to_string()],
    )?;
    for node in &plan.nodes {
        let netns = Netns::create(run, &node.name)?;
        sysctls(&netns, &["net/ipv4/ip_forward=1", "net/ipv6/conf/all/forwarding=1"])?;
        plug(&net, &netns, &node.name, node.mac, &[node.v4.to_string(), node.v6.to_string()])?;
        batch(&netns, &routes(plan, node))?;
        feed(Command::new("nft").args(["-f", "-"]), Some(&netns), &masquerade(node))?;
    }
    // The API server calls webhooks.
    let to_pods: Vec<String> = plan.nodes.iter().flat_map(route).collect();
    batch(&net, &to_pods)
}

/// Pulls the node's cable out of the bridge, or puts it back.
///
/// # Errors
/// No such port.
pub fn cable(plan: &Plan, node: &str, connected: bool) -> Result<()> {
    let net = Netns::named(plan.net());
    net.ip(&["link", "set", node, if connected { "up" } else { "down" }]).map(drop)
}

/// One cable: eth0 in `netns`, a port called `port` on the bridge.
fn plug(net: &Netns, netns: &Netns, port: &str, mac: [u8; 6], addresses: &[String; 2]) -> Result<()> {
    batch(
        net,
        &[
            format!(
                "link add {port} type veth peer name eth0 address {} netns {}",
                mac_text(mac),
                netns.name()
            ),
            format!("link set {port} master br0"),
            format!("link set {port} up"),
        ],
    )?;
    let [v4, v6] = addresses;
    batch(
        netns,
        &[
            format!("addr add {v4}/24 dev eth0"),
            format!("addr add {v6}/64 dev eth0 nodad"),
            "link set eth0 up".into(),
        ],
    )
}

/// To the pods of every other node.
fn routes(plan: &Plan, node: &NodePlan) -> Vec<String> {
    plan.nodes.iter().filter(|other| other.name != node.name).flat_map(route).collect()
}

/// To the pods of one node.
fn route(node: &NodePlan) -> [String; 2] {
    let [v4, v6] = node.pod_cidrs();
    [format!("route add {v4} via {}", node.v4), format!("route add {v6} via {}", node.v6)]
}

/// Pods speak to the world outside the cluster with their node's address, as with most network plugins.
fn masquerade(node: &NodePlan) -> String {
    let ([own_v4, own_v6], [all_v4, all_v6]) = (node.pod_cidrs(), POD_CIDRS);
    format!(
        "table inet lab_pods {{
           chain postrouting {{
             type nat hook postrouting priority srcnat; policy accept;
             ip saddr {own_v4} ip daddr != {all_v4} masquerade
             ip6 saddr {own_v6} ip6 daddr != {all_v6} masquerade
           }}
         }}\n"
    )
}

/// Settings of a pod's namespace.
///
/// # Errors
/// As [`build`].
pub fn pod_sysctls(netns: &Netns) -> Result<()> {
    // nginx as a user that is not root listens on port 80 in a container, too.
    sysctls(netns, &["net/ipv4/ip_unprivileged_port_start=0"])
}

/// Common settings, and `more` as `net/…=value`: addresses are usable at once (nobody else gives them out), answers
/// may come another way than the question went, and nobody is told of a better way.
pub(crate) fn sysctls(netns: &Netns, more: &[&str]) -> Result<()> {
    let mut script = String::from(
        "for f in all default; do
           echo 0 > /proc/sys/net/ipv6/conf/$f/disable_ipv6
           echo 0 > /proc/sys/net/ipv6/conf/$f/accept_dad
           echo 0 > /proc/sys/net/ipv6/conf/$f/accept_ra
           echo 0 > /proc/sys/net/ipv4/conf/$f/rp_filter
           echo 0 > /proc/sys/net/ipv4/conf/$f/send_redirects
         done\n",
    );
    for setting in more {
        if let Some((name, value)) = setting.split_once('=') {
            script.push_str(&format!("echo {value} > /proc/sys/{name}\n"));
        }
    }
    feed(Command::new("sh").args(["-e", "-s"]), Some(netns), &script)
}

/// Many `ip` commands in one process, all inside `netns`.
///
/// # Errors
/// The first that failed, in `ip`'s words (it names the line).
pub fn batch(netns: &Netns, lines: &[String]) -> Result<()> {
    let text = lines.join("\n");
    feed(Command::new("ip").args(["-n", netns.name(), "-batch", "-"]), None, &text)
        .with_context(|| format!("in {}:\n{text}", netns.name()))
}

/// Runs `command` with `input` on its standard input.
fn feed(command: &mut Command, netns: Option<&Netns>, input: &str) -> Result<()> {
    if let Some(netns) = netns {
        netns.enter_before_exec(command)?;
    }
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {program}: is its package installed (iproute2, nftables)?"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).with_context(|| format!("write to {program}"))?;
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("{program}: {} {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// `02:25:07:00:00:11`.
#[must_use]
pub fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
