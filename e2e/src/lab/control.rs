//! The lab's switchboard: a Unix socket in its directory, a line in, a line out. `off node2`, `on node2`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};

use super::node::Machines;
use super::plan::Plan;
use crate::kubelet::Kubelet;
use crate::rundir::RunDir;

/// Where the lab in `dir` listens.
pub(super) fn socket(dir: &Path) -> PathBuf {
    dir.join("control")
}

/// Opens the switchboard and says so in `lab.json`: from here on other processes find the lab.
pub(super) fn open(run: &RunDir, plan: &Plan) -> Result<UnixListener> {
    let path = socket(run.path());
    let listener = UnixListener::bind(&path).with_context(|| format!("listen on {}", path.display()))?;
    let draft = run.path().join("lab.json.draft");
    std::fs::write(&draft, serde_json::json!({"nodes": plan.nodes.len()}).to_string())?;
    std::fs::rename(&draft, run.path().join("lab.json"))?;
    Ok(listener)
}

/// Serves until the lab ends.
pub(super) async fn serve(
    listener: UnixListener,
    plan: &Plan,
    kubelet: &Kubelet,
    machines: &Machines,
) -> Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        if let Err(error) = answer(stream, plan, kubelet, machines).await {
            tracing::debug!("control: {error:#}"); // who asked went away
        }
    }
}

async fn answer(stream: UnixStream, plan: &Plan, kubelet: &Kubelet, machines: &Machines) -> Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    BufReader::new(read).read_line(&mut line).await?;
    let reply = match obey(line.trim(), plan, kubelet, machines) {
        Ok(()) => "ok\n".to_owned(),
        Err(error) => format!("{error:#}\n"),
    };
    write.write_all(reply.as_bytes()).await?;
    Ok(())
}

fn obey(line: &str, plan: &Plan, kubelet: &Kubelet, machines: &Machines) -> Result<()> {
    match line.split_once(' ') {
        Some(("off", node)) => {
            let node = plan.node(node)?;
            machines.power_off(plan, node)?;
            kubelet.power_off(&node.name);
        }
        Some(("on", node)) => {
            let node = plan.node(node)?;
            machines.power_on(plan, node)?;
            kubelet.power_on(&node.name);
        }
        _ => bail!("not an order: {line:?}"),
    }
    Ok(())
}
