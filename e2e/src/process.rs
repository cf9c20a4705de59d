//! Processes of a run: started in a namespace or not, their output in the run's logs, killed with the run.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::netns::Netns;
use crate::rundir::{RunDir, write_pid};
use crate::wait::{self, Seen};

/// How a process is to be started.
#[derive(Debug)]
pub struct Spec {
    name: String,
    command: Command,
    netns: Option<Netns>,
}

impl Spec {
    /// `name` is unique in the run at any time: its pid file and its log are called so.
    pub fn new(name: impl Into<String>, program: impl AsRef<Path>) -> Spec {
        Spec { name: name.into(), command: Command::new(program.as_ref()), netns: None }
    }

    pub fn arg(mut self, arg: impl Into<OsString>) -> Spec {
        self.command.arg(arg.into());
        self
    }

    pub fn args<S: Into<OsString>>(mut self, args: impl IntoIterator<Item = S>) -> Spec {
        self.command.args(args.into_iter().map(Into::into));
        self
    }

    pub fn env(mut self, key: impl Into<OsString>, value: impl Into<OsString>) -> Spec {
        self.command.env(key.into(), value.into());
        self
    }

    /// Starts it in that network namespace.
    pub fn netns(mut self, netns: Option<&Netns>) -> Spec {
        self.netns = netns.cloned();
        self
    }

    /// Anything else about the command (working directory, cleared environment, user …).
    pub fn configure(mut self, change: impl FnOnce(&mut Command)) -> Spec {
        change(&mut self.command);
        self
    }

    /// Starts the process. It dies with this program, however this program ends.
    ///
    /// # Errors
    /// The program is not there or the namespace is gone.
    pub fn spawn(self, run: &Arc<RunDir>) -> Result<Process> {
        let Spec { name, mut command, netns } = self;
        let log = run.log(&name);
        let out = File::options().create(true).append(true).open(&log)?;
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        // A signal to the terminal's group (Ctrl-C) is for us; we end our processes in order.
        command.process_group(0);
        if let Some(netns) = &netns {
            netns.enter_before_exec(&mut command)?;
        }
        die_with_parent(&mut command);
        let child = spawn_from_the_lasting_thread(command).with_context(|| format!("start {name}"))?;
        let mut process = Process { name, child, log, run: Arc::clone(run) };
        if let Err(e) = write_pid(&run.pid_file(&process.name), process.pid()) {
            process.kill();
            return Err(e.context(format!(
                "{} did not stay; its log:\n{}",
                process.name,
                process.log_tail(20)
            )));
        }
        Ok(process)
    }
}

/// A running process of a run. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    run: Arc<RunDir>,
}

impl Process {
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The last `lines` lines of its output.
    pub fn log_tail(&self, lines: usize) -> String {
        crate::report::tail(&self.log, lines)
    }

    /// How it ended, when it did.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// The process has ended.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if let Some(status) = self.exited() {
            return Err(anyhow!("{} has ended: {status}", self.name));
        }
        Ok(kill(Pid::from_raw(self.pid()), signal)?)
    }

    /// SIGKILL, and waits for the end: the crash of a process.
    pub fn kill(&mut self) {
        // Both fail only when it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, and SIGKILL when it has not ended by the deadline. True when it ended by itself.
    pub fn terminate(&mut self, deadline: Duration) -> bool {
        let _ = self.signal(Signal::SIGTERM); // an error: it has ended
        let ended = wait::until_blocking("it has ended", deadline, || {
            Ok(self.exited().map_or_else(|| Seen::Not("running".to_owned()), Seen::Done))
        });
        self.kill();
        ended.is_ok()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_file(self.run.pid_file(&self.name)); // the run may have cleaned it
    }
}

#[allow(unsafe_code)] // pre_exec: what runs between fork and exec is one system call
fn die_with_parent(command: &mut Command) {
    // SAFETY: prctl is async-signal-safe and the closure captures nothing.
    unsafe {
        command.pre_exec(|| set_pdeathsig(Signal::SIGKILL).map_err(Into::into));
    }
}

/// Starts a command from one thread that lives as long as the program. The kernel sends the parent-death signal when
/// the *thread* that forked ends (prctl(2)), and the threads of tests and of tokio's pools end long before the program.
fn spawn_from_the_lasting_thread(command: Command) -> Result<Child> {
    type Order = (Command, mpsc::Sender<std::io::Result<Child>>);
    static SPAWNER: OnceLock<mpsc::Sender<Order>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (orders, received) = mpsc::channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, answer) in received {
                let _ = answer.send(command.spawn()); // who asked waits below
            }
        });
        orders
    });
    let (answer, child) = mpsc::channel();
    spawner.send((command, answer)).map_err(|_| anyhow!("the spawning thread has ended"))?;
    Ok(child.recv().context("the spawning thread has ended")??)
}
