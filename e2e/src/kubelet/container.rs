//! One container: its process, its restarts, its probes.
//!
//! Which program it is: an image that is called `patina` (any registry, any tag) runs the program of ours that its
//! `command` names; every other image is played by `lab pod` ([`crate::pod`]), which listens on the container's
//! ports.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Container;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::env::expand;
use super::probe::{self, Asked};
use super::sandbox::{Bind, Sandbox};
use crate::netns::Netns;
use crate::process::{Process, Spec};
use crate::rundir::RunDir;

/// How often a process is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// A probe is asked this often until its first yes: a lab is in a hurry where a kubelet is not.
const EAGER: Duration = Duration::from_millis(150);
/// Before the first restart; doubled by each that follows soon, up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(250);
const BACKOFF_MAX: Duration = Duration::from_secs(8);
/// A process that lived this long starts its backoff anew.
const LIVED: Duration = Duration::from_secs(20);

/// A container as its pod's status has it.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    /// `name`.
    pub name: String,
    image: String,
    /// Whether it runs.
    pub condition: Condition,
    /// Its readiness probe said yes, or it has none and runs.
    pub ready: bool,
    restarts: u32,
}

/// `state` of a containerStatus.
#[derive(Debug, Clone, PartialEq)]
pub enum Condition {
    /// Not running, and why.
    Waiting {
        /// `ContainerCreating`, `CrashLoopBackOff` …
        reason: String,
        /// A sentence.
        message: String,
    },
    /// Running since.
    Running {
        /// RFC 3339.
        since: String,
    },
    /// Ended on request.
    Ended,
}

impl State {
    pub(super) fn waiting(container: &Container) -> Self {
        Self {
            name: container.name.clone(),
            image: container.image.clone().unwrap_or_default(),
            condition: Condition::Waiting { reason: "ContainerCreating".into(), message: String::new() },
            ready: false,
            restarts: 0,
        }
    }

    pub(super) fn status(&self) -> Value {
        let state = match &self.condition {
            Condition::Waiting { reason, message } => {
                json!({"waiting": {"reason": reason, "message": message}})
            }
            Condition::Running { since } => json!({"running": {"startedAt": since}}),
            Condition::Ended => json!({"terminated": {"exitCode": 0, "reason": "Completed"}}),
        };
        json!({
            "name": self.name, "image": self.image, "imageID": "", "restartCount": self.restarts,
            "ready": self.ready, "started": matches!(self.condition, Condition::Running { .. }), "state": state,
        })
    }
}

/// Everything that a container is started with.
#[derive(Debug)]
pub(super) struct Start {
    pub run: Arc<RunDir>,
    /// Unique in the lab; names its log.
    pub name: String,
    pub netns: Netns,
    pub sandbox: Sandbox,
    pub argv: Vec<String>,
    pub env: Vec<(String, String)>,
    pub readiness: Option<Asked>,
    pub liveness: Option<Asked>,
}

/// The program of a container, and its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Program {
    /// Bound into the container's root.
    pub bind: Option<(PathBuf, PathBuf)>,
    pub argv: Vec<String>,
}

/// Finds the program.
///
/// # Errors
/// Our image with a command that we do not have; the text names those that we have.
pub(super) fn program(
    container: &Container,
    programs: &BTreeMap<String, PathBuf>,
    stand_in: &std::path::Path,
    env: &[(String, String)],
    identity: [&str; 2],
) -> Result<Program> {
    let known: BTreeMap<String, String> = env.iter().cloned().collect();
    let expanded =
        |words: &Option<Vec<String>>| words.iter().flatten().map(|w| expand(w, &known)).collect::<Vec<_>>();
    if is_ours(container.image.as_deref().unwrap_or_default()) {
        let command = expanded(&container.command);
        let Some((name, rest)) = command.split_first() else { bail!("the patina image needs a command") };
        let program = programs.get(name).with_context(|| {
            let names = programs.keys().cloned().collect::<Vec<_>>().join(", ");
            format!("the patina image has no program {name}; it has {names}")
        })?;
        let argv = [std::slice::from_ref(name), rest, &expanded(&container.args)].concat();
        return Ok(Program { bind: Some((program.clone(), PathBuf::from(name))), argv });
    }
    let mut argv: Vec<String> =
        ["/lab", "pod", "--pod", identity[0], "--node", identity[1]].map(str::to_owned).into();
    let ports: Vec<i32> = container.ports.iter().flatten().map(|p| p.container_port).collect();
    for port in if ports.is_empty() { vec![80] } else { ports } {
        argv.push(format!("--port={port}"));
    }
    Ok(Program { bind: Some((stand_in.to_path_buf(), "/lab".into())), argv })
}

/// `registry.example/x/patina:v1`, `patina@sha256:…`, `patina`.
pub(super) fn is_ours(image: &str) -> bool {
    let last = image.rsplit('/').next().unwrap_or_default();
    last.split(['@', ':']).next() == Some("patina")
}

/// How a container is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    Run,
    /// SIGTERM, and SIGKILL after that time.
    End(Duration),
}

/// Runs the container until it is told to end, reporting each change of its state as `(index, state)`.
pub(super) async fn run(
    index: usize,
    start: Start,
    mut state: State,
    report: mpsc::UnboundedSender<(usize, State)>,
    mut wanted: watch::Receiver<Wanted>,
) {
    let tell = |state: &State| drop(report.send((index, state.clone()))); // nobody listens: the pod is gone
    let mut backoff = BACKOFF_MIN;
    loop {
        let began = Instant::now();
        let reason = match spawn(&start) {
            Ok(process) => {
                state.condition = Condition::Running { since: super::status::now() };
                state.ready = start.readiness.is_none();
                tell(&state);
                match attend(&start, process, &mut state, &tell, &mut wanted).await {
                    Ended::Wanted => {
                        state.condition = Condition::Ended;
                        state.ready = false;
                        tell(&state);
                        return;
                    }
                    Ended::Died(reason) => reason,
                }
            }
            Err(error) => format!("{error:#}"),
        };
        tracing::info!("container {} died: {reason}", start.name);
        if began.elapsed() > LIVED {
            backoff = BACKOFF_MIN;
        }
        state.condition = Condition::Waiting { reason: "CrashLoopBackOff".into(), message: reason };
        state.ready = false;
        state.restarts += 1;
        tell(&state);
        tokio::select! {
            () = tokio::time::sleep(backoff) => {}
            () = end_wanted(&mut wanted) => return,
        }
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

enum Ended {
    /// It was told to.
    Wanted,
    /// By itself, and how.
    Died(String),
}

async fn attend(
    start: &Start,
    mut process: Process,
    state: &mut State,
    tell: &impl Fn(&State),
    wanted: &mut watch::Receiver<Wanted>,
) -> Ended {
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut readiness = start.readiness.clone().map(Prober::new);
    let mut liveness = start.liveness.clone().map(Prober::new);
    loop {
        tokio::select! {
            () = end_wanted(wanted) => {
                let Wanted::End(grace) = *wanted.borrow() else { continue };
                end(process, grace).await;
                return Ended::Wanted;
            }
            _ = look.tick() => {
                if let Some(status) = process.exited() {
                    return Ended::Died(format!("{status}; {}", last_words(&process)));
                }
            }
            verdict = next_verdict(&mut readiness, &start.netns) => {
                if let Err(reason) = &verdict {
                    tracing::debug!("{}: not ready: {reason}", start.name);
                }
                if state.ready != verdict.is_ok() {
                    state.ready = verdict.is_ok();
                    tell(state);
                }
            }
            verdict = next_verdict(&mut liveness, &start.netns) => {
                if let Err(reason) = verdict {
                    process.kill();
                    return Ended::Died(format!("its liveness probe failed: {reason}"));
                }
            }
        }
    }
}

/// The end of its log, short enough for a status.
fn last_words(process: &Process) -> String {
    let text = process.log_tail(3).trim().replace('\n', " | ");
    let skipped = text.chars().count().saturating_sub(400);
    text.chars().skip(skipped).collect()
}

/// A probe and what it remembers.
struct Prober {
    asked: Asked,
    next: Instant,
    /// It has said yes once.
    seen: bool,
    failures: u32,
}

impl Prober {
    fn new(asked: Asked) -> Self {
        Self { asked, next: Instant::now() + EAGER, seen: false, failures: 0 }
    }
}

/// The probe's next verdict that counts: each yes, and a no after `failureThreshold` of them in a row. Before the
/// first yes a no is only "not yet". Safe to drop and ask again.
async fn next_verdict(prober: &mut Option<Prober>, netns: &Netns) -> Result<(), String> {
    let Some(prober) = prober else { return std::future::pending().await };
    loop {
        tokio::time::sleep_until(prober.next).await;
        let answer = probe::ask(netns.clone(), &prober.asked).await;
        prober.next =
            Instant::now() + if prober.seen || answer.is_ok() { prober.asked.period } else { EAGER };
        match answer {
            Ok(()) => {
                (prober.seen, prober.failures) = (true, 0);
                return Ok(());
            }
            Err(reason) => {
                prober.failures += 1;
                if prober.seen && prober.failures >= prober.asked.failures {
                    return Err(reason);
                }
                tracing::trace!("probe: {reason}");
            }
        }
    }
}

async fn end_wanted(wanted: &mut watch::Receiver<Wanted>) {
    // The pod's worker is gone: the task that we are in is about to be dropped, too.
    if wanted.wait_for(|w| matches!(w, Wanted::End(_))).await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn spawn(start: &Start) -> Result<Process> {
    let script = start.run.dir("pods")?.join(format!("{}.sh", start.name));
    let command = start.sandbox.command(&script, &start.argv)?;
    let (program, args) = command.split_first().context("empty command")?;
    let mut spec = Spec::new(&start.name, program).args(args).netns(Some(&start.netns)).configure(|c| {
        c.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    });
    for (name, value) in &start.env {
        spec = spec.env(name, value);
    }
    spec.spawn(&start.run)
}

async fn end(mut process: Process, grace: Duration) {
    let deadline = Instant::now() + grace;
    let _ended_already = process.signal(Signal::SIGTERM);
    while process.exited().is_none() && Instant::now() < deadline {
        tokio::time::sleep(LOOK).await;
    }
    process.kill();
}

/// Binds of a container's volumeMounts.
///
/// # Errors
/// A mount of a volume that the pod does not have.
pub(super) fn mounts(container: &Container, volumes: &BTreeMap<String, PathBuf>) -> Result<Vec<Bind>> {
    let mut binds = Vec::new();
    for mount in container.volume_mounts.iter().flatten() {
        let volume = volumes.get(&mount.name).with_context(|| format!("no volume {}", mount.name))?;
        let from = match &mount.sub_path {
            Some(sub) => volume.join(sub),
            None => volume.clone(),
        };
        let writable = !mount.read_only.unwrap_or(false);
        binds.push(Bind { from, to: PathBuf::from(&mount.mount_path), writable });
    }
    Ok(binds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_image_is_known_under_any_registry_and_tag() {
        for image in ["patina", "patina:latest", "ghcr.example/x/patina:v0.1.0", "r:5000/patina@sha256:00"] {
            assert!(is_ours(image), "{image}");
        }
        for image in ["nginx", "patina/nginx:1", "notpatina:1"] {
            assert!(!is_ours(image), "{image}");
        }
    }

    #[test]
    fn a_command_that_the_image_lacks_is_answered_with_those_it_has() {
        let programs = BTreeMap::from([("/patina-speaker".to_owned(), PathBuf::from("/x"))]);
        let container = Container {
            image: Some("patina".into()),
            command: Some(vec!["/speaker".into()]),
            ..Default::default()
        };
        let error = program(&container, &programs, "/lab".as_ref(), &[], ["p", "n"]).unwrap_err().to_string();
        assert!(error.contains("no program /speaker; it has /patina-speaker"), "{error}");
    }
}
