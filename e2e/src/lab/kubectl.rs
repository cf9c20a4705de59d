//! kubectl, as a person at the lab types it.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::control_plane::Said;
use crate::tools::Tool;

/// kubectl with the administrator's rights.
#[derive(Debug, Clone)]
pub struct Kubectl {
    pub(super) kubeconfig: PathBuf,
    pub(super) cache: PathBuf,
}

impl Kubectl {
    /// The command, with nothing to do yet.
    ///
    /// # Errors
    /// There is no kubectl.
    pub fn command(&self) -> Result<Command> {
        let mut command = Command::new(Tool::Kubectl.path()?);
        command.env("KUBECONFIG", &self.kubeconfig).env("KUBECACHEDIR", &self.cache).env("KUBERC", "off");
        Ok(command)
    }

    /// Standard output of `kubectl ARGS`.
    ///
    /// # Errors
    /// It failed; the text has its command line and words.
    pub fn run(&self, args: &[&str]) -> Result<String> {
        let said = self.said(args, "")?;
        if !said.success {
            bail!("kubectl {}: {}", args.join(" "), said.stderr.trim());
        }
        Ok(said.stdout)
    }

    /// `kubectl apply -f -`.
    ///
    /// # Errors
    /// The API server refused something; the text has its words.
    pub fn apply(&self, yaml: &str) -> Result<String> {
        let said = self.said(&["apply", "-f", "-"], yaml)?;
        if !said.success {
            bail!("kubectl apply: {}{}", said.stdout, said.stderr.trim());
        }
        Ok(said.stdout)
    }

    /// What kubectl says to `ARGS` with `input`, whether it succeeds or not.
    ///
    /// # Errors
    /// It could not be run.
    pub fn said(&self, args: &[&str], input: &str) -> Result<Said> {
        let mut child = self
            .command()?
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("run kubectl")?;
        if let Some(mut stdin) = child.stdin.take() {
            // kubectl reads all of it before it says anything of length.
            stdin.write_all(input.as_bytes()).context("write to kubectl")?;
        }
        let output = child.wait_with_output()?;
        Ok(Said {
            success: output.status.success(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }
}
