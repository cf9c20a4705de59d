//! Labs that outlive the command that started them.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};

use crate::lab::view::View;
use crate::lab::{Lab, Options};
use crate::wait::{self, Seen, secs};
use crate::{paths, tracing_to_stderr};

/// The last line of a lab that came up.
const READY: &str = "ready";
/// Marks a lab that a person started, so that `down --all` leaves those of tests alone.
const MARK: &str = "started-by-lab-up";

/// Starts `lab serve` in the background and waits until it is up, saying what it says.
pub(super) fn up(nodes: u8, name: &str, bare: bool) -> Result<()> {
    let log = log_file(name)?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["serve", "--name", name, "--nodes", &nodes.to_string()]);
    if bare {
        command.arg("--bare");
    }
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(File::create(&log)?)
        // Ctrl-C at this terminal is not for it.
        .process_group(0)
        .spawn()?;
    let said = child.stdout.take().context("no output to read")?;
    for line in BufReader::new(said).lines() {
        let line = line?;
        if line == READY {
            return look_around(&View::attach(name)?);
        }
        println!("{line}");
    }
    let status = child.wait()?;
    bail!("the lab did not come up ({status}):\n{}", crate::report::tail(&log, 200))
}

fn look_around(lab: &View) -> Result<()> {
    let name = &lab.plan().id;
    println!("\nThe lab {name} is up, and stays up until you end it. From here on:\n");
    println!("  alias lab={}", std::env::current_exe()?.display());
    println!("  export KUBECONFIG={}   # or: lab kubectl -- ARGS", lab.kubeconfig().display());
    println!("  lab status");
    println!("  lab exec client -- ping -c1 172.25.7.11");
    println!("  lab kill-node node1; lab start-node node1");
    println!("  lab down --name {name}\n");
    println!("lab --help says more; a pool to try is 172.25.7.100-172.25.7.250.");
    Ok(())
}

/// The life of a lab that `up` started: until SIGTERM.
pub(super) fn serve(nodes: u8, name: &str, bare: bool) -> Result<()> {
    tracing_to_stderr();
    let options = Options { name: Some(name.to_owned()), nodes, install: !bare, ..Options::default() };
    // `up` may have gone away; nobody has to hear it.
    let say = |line: &str| drop(writeln!(std::io::stdout(), "{line}"));
    let lab = Lab::up(options, say)?;
    std::fs::write(lab.dir().join(MARK), "")?;
    say(READY);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        anyhow::Ok(())
    })?;
    lab.down();
    Ok(())
}

/// Every running lab that `up` started.
pub(super) fn started_by_people() -> Vec<View> {
    View::running().into_iter().filter(|lab| lab.dir().join(MARK).exists()).collect()
}

/// Ends a lab and waits until nothing of it is left.
pub(super) fn down(lab: &View) -> Result<()> {
    let name = &lab.plan().id;
    let owner = std::fs::read_to_string(lab.dir().join("owner"))?;
    let owner: i32 = owner.trim().parse().context("the lab's owner")?;
    kill(Pid::from_raw(owner), Signal::SIGTERM).with_context(|| format!("end the lab {name}"))?;
    wait::until_blocking(&format!("the lab {name} is gone"), secs(30), || {
        let left = lab.dir().exists();
        Ok(if left { Seen::Not(format!("{} is there", lab.dir().display())) } else { Seen::Done(()) })
    })?;
    println!("the lab {name} is down");
    Ok(())
}

fn log_file(name: &str) -> Result<PathBuf> {
    let root: PathBuf = paths::run_root();
    std::fs::create_dir_all(&root).with_context(|| format!("create {}", root.display()))?;
    Ok(Path::new(&root).join(format!("{name}.log")))
}
