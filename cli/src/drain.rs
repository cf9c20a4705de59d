//! `kubectl patina drain`: moves what a node announces to other nodes, and waits until it has moved.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use k8s_openapi::api::core::v1::Node;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client};
use patina_crds::keys;
use patina_crds::types::ServiceL2Status;
use patina_runtime::client;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::args::{Cluster, Drain};
use crate::cluster::{connect, list};

/// How often is looked. A handover takes less than a second.
const LOOK: Duration = Duration::from_millis(500);
/// How many Services are named when the time is up.
const NAMED: usize = 10;

/// Sets or takes away the annotation; after a drain waits until no Service is announced from the node.
///
/// # Errors
/// No cluster, no such node, or not allowed.
pub async fn run(args: &Drain) -> Result<ExitCode> {
    let cluster = Cluster {
        namespace: None,
        system_namespace: args.system_namespace.clone(),
        kubeconfig: args.kubeconfig.clone(),
        context: args.context.clone(),
    };
    let (client, _) = connect(&cluster).await?;
    annotate(&client, &args.node, !args.undo).await?;
    if args.undo {
        println!("node {} takes part again", args.node);
        return Ok(ExitCode::SUCCESS);
    }
    println!("node {} drains", args.node);
    if args.timeout == Duration::ZERO {
        return Ok(ExitCode::SUCCESS);
    }
    wait(&client, args).await
}

async fn annotate(client: &Client, node: &str, drain: bool) -> Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    match nodes.patch_metadata(node, &PatchParams::default(), &Patch::Merge(patch(drain))).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => bail!("there is no node {node}"),
        Err(error) => bail!("cannot annotate node {node}: {}", client::brief(&error)),
    }
}

/// What makes a node drain, or not.
fn patch(drain: bool) -> Value {
    let value = if drain { json!("true") } else { Value::Null };
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"annotations": {keys::DRAIN: value}},
    })
}

async fn wait(client: &Client, args: &Drain) -> Result<ExitCode> {
    let end = Instant::now() + args.timeout;
    let mut shown = None;
    loop {
        let statuses: Vec<ServiceL2Status> =
            match list(client, &args.system_namespace, &ListParams::default()).await {
                Ok(statuses) => statuses,
                Err(why) => bail!("cannot see who announces: {why}"),
            };
        let left = announced_from(&statuses, &args.node);
        if left.is_empty() {
            println!("no Service is announced from node {} by layer 2", args.node);
            return Ok(ExitCode::SUCCESS);
        }
        if shown.replace(left.len()) != Some(left.len()) {
            println!("{} still announced from it", services(left.len()));
        }
        if Instant::now() >= end {
            println!("{}", time_is_up(&left, args));
            return Ok(ExitCode::from(1));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The Services that the node says to announce, as `namespace/name`.
fn announced_from(statuses: &[ServiceL2Status], node: &str) -> BTreeSet<String> {
    let statuses = statuses.iter().filter_map(|object| object.status.as_ref());
    statuses
        .filter(|status| status.node.as_deref() == Some(node))
        .map(|status| {
            let part = |text: &Option<String>| text.clone().unwrap_or_default();
            format!("{}/{}", part(&status.service_namespace), part(&status.service_name))
        })
        .collect()
}

fn services(count: usize) -> String {
    if count == 1 { "1 Service is".to_owned() } else { format!("{count} Services are") }
}

fn time_is_up(left: &BTreeSet<String>, args: &Drain) -> String {
    let mut named: Vec<&str> = left.iter().take(NAMED).map(String::as_str).collect();
    if left.len() > NAMED {
        named.push("...");
    }
    format!(
        "after {:?} {} still announced from it: {}\nThe node may be the only candidate (kubectl patina l2 lists them), or its \
         speaker does not run. It goes on draining; kubectl patina drain {} --undo ends that",
        args.timeout,
        services(left.len()),
        named.join(" "),
        args.node
    )
}

#[cfg(test)]
mod tests {
    use patina_crds::types::ServiceL2StatusStatus;

    use super::*;

    #[test]
    fn what_is_left_is_what_the_node_says_to_announce() {
        let status = |node: &str, name: &str| {
            let status = ServiceL2StatusStatus {
                node: Some(node.to_owned()),
                service_name: Some(name.to_owned()),
                service_namespace: Some("shop".to_owned()),
                ..ServiceL2StatusStatus::default()
            };
            ServiceL2Status { status: Some(status), ..ServiceL2Status::default() }
        };
        let all = [status("a", "web"), status("b", "db"), status("a", "mail"), ServiceL2Status::default()];
        assert_eq!(announced_from(&all, "a").into_iter().collect::<Vec<_>>(), ["shop/mail", "shop/web"]);
        assert!(announced_from(&all, "c").is_empty());
    }

    #[test]
    fn the_end_of_a_drain_takes_the_annotation_away() {
        assert_eq!(patch(true)["metadata"]["annotations"]["patina.io/drain"], "true");
        assert_eq!(patch(false)["metadata"]["annotations"]["patina.io/drain"], Value::Null);
    }
}
