//! What a person would type at this cluster.

use std::process::Stdio;

use anyhow::{Context, Result, bail};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::{ControlPlane, tool};
use crate::paths;
use crate::tools::Tool;

/// What a program said and whether it succeeded.
#[derive(Debug, Clone)]
pub struct Said {
    pub success: bool,
    pub stdout: String,
    pub stderr: String,
}

impl ControlPlane {
    /// `kubectl ARGS` as the administrator; its standard output.
    ///
    /// # Errors
    /// kubectl failed; the text has its command line and its words.
    pub async fn kubectl(&self, args: &[&str]) -> Result<String> {
        let said = self.kubectl_with(args, "").await?;
        if !said.success {
            bail!("kubectl {}: {}", args.join(" "), said.stderr.trim());
        }
        Ok(said.stdout)
    }

    /// `kubectl ARGS` with `input` on its standard input, whether it succeeds or not: for what ought to be refused.
    ///
    /// # Errors
    /// kubectl could not be run.
    pub async fn kubectl_with(&self, args: &[&str], input: &str) -> Result<Said> {
        let mut child = Command::new(tool(Tool::Kubectl).await?)
            .args(args)
            .env("KUBECONFIG", self.admin_kubeconfig())
            .env("KUBECACHEDIR", self.run.dir("kubectl-cache")?)
            .env("KUBERC", "off")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("run kubectl")?;
        if let Some(mut stdin) = child.stdin.take() {
            let input = input.to_owned();
            // Beside reading the output: neither side waits for the other. kubectl may end without reading it all.
            tokio::spawn(async move { stdin.write_all(input.as_bytes()).await });
        }
        let output = child.wait_with_output().await?;
        Ok(Said {
            success: output.status.success(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// `kubectl apply -f -`; what kubectl printed.
    ///
    /// # Errors
    /// The API server refused an object; the text has its words.
    pub async fn apply(&self, yaml: &str) -> Result<String> {
        let said = self.kubectl_with(&["apply", "-f", "-"], yaml).await?;
        if !said.success {
            bail!("kubectl apply: {}{}", said.stdout, said.stderr.trim());
        }
        Ok(said.stdout)
    }

    /// Installs `crds/yaml` and waits until the API server serves the kinds.
    ///
    /// # Errors
    /// The API server refused a CustomResourceDefinition.
    pub async fn apply_crds(&self) -> Result<()> {
        let dir = paths::crds_yaml();
        let dir = dir.to_str().context("the workspace's path is not UTF-8")?;
        self.kubectl(&["apply", "--server-side", "-f", dir]).await?;
        self.kubectl(&["wait", "--for=condition=Established", "--timeout=30s", "-f", dir]).await?;
        Ok(())
    }
}
