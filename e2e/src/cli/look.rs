//! Looking at labs.

use anyhow::Result;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

use crate::kubelet::is_ready;
use crate::lab::view::{View, pod_words};

/// Prints what runs.
pub(super) fn status(name: Option<&str>, as_json: bool) -> Result<()> {
    let labs = match name {
        Some(name) => vec![View::attach(name)?],
        None => View::running(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let seen: Vec<Value> = labs.iter().map(|lab| runtime.block_on(one(lab))).collect();
    if as_json {
        println!("{}", serde_json::to_string_pretty(&seen)?);
    } else if seen.is_empty() {
        println!("no lab is running: `lab up` starts one");
    } else {
        seen.iter().for_each(print);
    }
    Ok(())
}

async fn one(lab: &View) -> Value {
    let plan = lab.plan();
    let about = |nodes: Value, pods: Value, problem: Option<String>| {
        json!({"name": plan.id, "directory": lab.dir(), "kubeconfig": lab.kubeconfig(), "nodes": nodes,
               "pods": pods, "client": {"netns": plan.client(), "addresses": ["172.25.7.5", "fd00:25:7::5"]},
               "problem": problem})
    };
    match objects(lab).await {
        Ok((nodes, pods)) => about(nodes, pods, None),
        Err(error) => about(json!([]), json!([]), Some(format!("{error:#}"))),
    }
}

async fn objects(lab: &View) -> Result<(Value, Value)> {
    let client = lab.client().await?;
    let nodes = Api::<Node>::all(client.clone()).list(&ListParams::default()).await?;
    let pods = Api::<Pod>::all(client).list(&ListParams::default()).await?;
    let nodes = nodes.iter().map(|node| {
        let planned = lab.plan().node(&node.name_any()).ok();
        let addresses = planned.map(|p| p.addresses());
        json!({"name": node.name_any(), "ready": is_ready(node), "addresses": addresses,
               "netns": planned.map(|p| p.netns.clone())})
    });
    let pods = pods.iter().map(|pod| {
        let ips = pod.status.as_ref().and_then(|s| s.pod_ips.clone()).unwrap_or_default();
        json!({"namespace": pod.namespace(), "name": pod.name_any(), "state": pod_words(pod),
               "node": pod.spec.as_ref().and_then(|s| s.node_name.clone()),
               "addresses": ips.into_iter().map(|i| i.ip).collect::<Vec<_>>()})
    });
    Ok((nodes.collect(), pods.collect()))
}

fn print(lab: &Value) {
    let text = |value: &Value| match value {
        Value::String(s) => s.clone(),
        Value::Array(list) => list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    };
    println!("lab {}   KUBECONFIG={}", text(&lab["name"]), text(&lab["kubeconfig"]));
    if let Some(problem) = lab["problem"].as_str() {
        println!("  problem: {problem}");
    }
    for node in lab["nodes"].as_array().into_iter().flatten() {
        let state = if node["ready"] == true { "ready" } else { "not ready" };
        println!("  {:<8} {:<10} {}", text(&node["name"]), state, text(&node["addresses"]));
    }
    println!("  {:<8} {:<10} {}", "client", "", text(&lab["client"]["addresses"]));
    for pod in lab["pods"].as_array().into_iter().flatten() {
        let name = format!("{}/{}", text(&pod["namespace"]), text(&pod["name"]));
        println!(
            "  {name:<55} {:<7} {:<24} {}",
            text(&pod["node"]),
            text(&pod["state"]),
            text(&pod["addresses"])
        );
    }
}

/// Prints the ends of the logs whose name has `part` in it.
pub(super) fn logs(lab: &View, part: &str, tail: usize) -> Result<()> {
    let mut files: Vec<_> =
        std::fs::read_dir(lab.dir().join("logs"))?.filter_map(|e| Some(e.ok()?.path())).collect();
    files.retain(|p| p.extension().is_some_and(|e| e == "log"));
    files.sort();
    let name = |path: &std::path::Path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let found: Vec<_> = files.iter().filter(|p| name(p).contains(part)).collect();
    if found.is_empty() {
        let names: Vec<String> = files.iter().map(|p| name(p)).collect();
        anyhow::bail!("no log with {part:?} in its name; there are {}", names.join(", "));
    }
    for file in found {
        println!("==> {} <==\n{}\n", name(file), crate::report::tail(file, tail));
    }
    Ok(())
}
