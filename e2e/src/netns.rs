//! Network namespaces with names (`ip netns`), owned by a run.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};

use crate::rundir::RunDir;

/// A named network namespace. A cheap handle: the namespace lives until [`Netns::delete`] or the end of its run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// Makes `patina-<run>-<short>` with its loopback up. Needs root.
    ///
    /// # Errors
    /// `ip` is missing (package iproute2), there is no permission, or the name is taken.
    pub fn create(run: &RunDir, short: &str) -> Result<Netns> {
        let netns = Netns { name: format!("{}{short}", run.netns_prefix()) };
        ip(&["netns", "add", &netns.name])?;
        netns.ip(&["link", "set", "lo", "up"])?;
        Ok(netns)
    }

    /// The handle of a namespace that somebody made.
    pub fn named(name: impl Into<String>) -> Netns {
        Netns { name: name.into() }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// `ip -n <this namespace> ARGS`; its output.
    ///
    /// # Errors
    /// `ip` said no; the text has its words.
    pub fn ip(&self, args: &[&str]) -> Result<String> {
        ip(&[&["-n", &self.name], args].concat())
    }

    /// Runs `work` on a thread of its own that has entered the namespace. Sockets that it opens stay in the
    /// namespace wherever they are used afterwards.
    ///
    /// # Errors
    /// The namespace cannot be entered.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| self.enter_this_thread().map(|()| work()));
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Moves the calling thread, and no other, into the namespace. For threads that end with their work.
    ///
    /// # Errors
    /// The namespace is gone or there is no permission.
    pub fn enter_this_thread(&self) -> Result<()> {
        setns(self.open()?, CloneFlags::CLONE_NEWNET).with_context(|| format!("enter netns {}", self.name))
    }

    /// A command whose process will run in the namespace (the file system stays the machine's).
    ///
    /// # Errors
    /// The namespace is gone.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Result<Command> {
        let mut command = Command::new(program);
        self.enter_before_exec(&mut command)?;
        Ok(command)
    }

    /// Runs a program to its end in the namespace; its standard output.
    ///
    /// # Errors
    /// It could not be started, or failed: the text has what it said.
    pub fn exec(&self, program: &str, args: &[&str]) -> Result<String> {
        finish(self.command(program)?.args(args), &format!("{program} {} in {}", args.join(" "), self.name))
    }

    /// Deletes the name; the namespace itself goes with its last process and socket.
    ///
    /// # Errors
    /// There is no such name.
    pub fn delete(&self) -> Result<()> {
        ip(&["netns", "delete", &self.name]).map(drop)
    }

    #[allow(unsafe_code)] // pre_exec: what runs between fork and exec is one system call on an open descriptor
    pub(crate) fn enter_before_exec(&self, command: &mut Command) -> Result<()> {
        let fd = self.open()?;
        // SAFETY: setns is async-signal-safe, and the closure touches nothing but the descriptor that it owns.
        unsafe {
            command.pre_exec(move || setns(&fd, CloneFlags::CLONE_NEWNET).map_err(Into::into));
        }
        Ok(())
    }

    fn open(&self) -> Result<File> {
        File::open(self.path()).with_context(|| format!("open netns {}", self.name))
    }
}

/// The names of all namespaces of this machine that begin with `prefix`.
pub(crate) fn names_with_prefix(prefix: &str) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir("/run/netns") else {
        return Vec::new(); // no directory: nobody ever made one
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with(prefix))
        .collect()
}

/// The processes that run in a namespace.
pub(crate) fn pids(name: &str) -> Vec<i32> {
    let listed = ip(&["netns", "pids", name]).unwrap_or_default();
    listed.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

fn ip(args: &[&str]) -> Result<String> {
    finish(Command::new("ip").args(args), &format!("ip {}", args.join(" ")))
}

fn finish(command: &mut Command, what: &str) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("run {what}"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let stdout = String::from_utf8_lossy(&output.stdout);
        bail!("{what}: {} {} {}", output.status, stderr.trim(), stdout.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
