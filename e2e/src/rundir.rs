//! What one run owns on this machine, and its end: a directory with its processes' pid files and logs, and the
//! network namespaces that carry its name. The directory is locked by its owner for life, so that any later run can
//! tell a crashed one and clean up after it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::netns::{self, Netns};
use crate::paths;

/// The life of a run. Dropping it kills its processes, deletes its namespaces and removes its directory.
#[derive(Debug)]
pub struct RunDir {
    id: String,
    path: PathBuf,
    keep_logs: AtomicBool,
    /// Locked as long as the owner lives.
    _owner: File,
}

impl RunDir {
    /// A run with a name of its own, after cleaning up what crashed runs left.
    ///
    /// # Errors
    /// The place for runs cannot be written.
    pub fn create() -> Result<RunDir> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        RunDir::named(&format!("{:x}-{count}", std::process::id()))
    }

    /// A run named by a person (`lab up --name x`).
    ///
    /// # Errors
    /// A run of that name is alive, or the place for runs cannot be written.
    pub fn named(id: &str) -> Result<RunDir> {
        let root = paths::run_root();
        fs::create_dir_all(&root).with_context(|| format!("create {}", root.display()))?;
        // One process at a time decides which directories have lost their owner.
        let gate = File::create(root.join("lock"))?;
        gate.lock()?;
        sweep(&root);
        let path = root.join("runs").join(id);
        if path.exists() {
            bail!("a lab named {id} is running ({})", path.display());
        }
        fs::create_dir_all(path.join("pids"))?;
        fs::create_dir_all(path.join("logs"))?;
        let owner = File::create(path.join("owner"))?;
        owner.lock()?;
        fs::write(path.join("owner"), std::process::id().to_string())?;
        Ok(RunDir { id: id.to_owned(), path, keep_logs: AtomicBool::new(false), _owner: owner })
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A directory of the run, made when it is not there.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn dir(&self, name: &str) -> Result<PathBuf> {
        let dir = self.path.join(name);
        fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        Ok(dir)
    }

    /// Where the output of process `name` goes.
    pub fn log(&self, name: &str) -> PathBuf {
        self.path.join("logs").join(format!("{name}.log"))
    }

    /// All logs of the run, by name.
    pub fn logs(&self) -> Vec<PathBuf> {
        let mut logs = files_in(&self.path.join("logs"));
        logs.sort();
        logs
    }

    /// Every network namespace of the run has a name that begins with this.
    pub fn netns_prefix(&self) -> String {
        netns_prefix(&self.id)
    }

    /// Keeps a copy of the logs when the run ends (it does so by itself when a test panics).
    pub fn keep_logs(&self) {
        self.keep_logs.store(true, Ordering::Relaxed);
    }

    /// Ends the run while others still own it: for a program that is about to exit.
    pub fn end(&self) {
        clean(&self.id, &self.path);
    }

    pub(crate) fn pid_file(&self, name: &str) -> PathBuf {
        self.path.join("pids").join(name)
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        if self.keep_logs.load(Ordering::Relaxed) || std::thread::panicking() {
            let kept = paths::kept_logs().join(&self.id);
            match copy_logs(&self.logs(), &kept) {
                Ok(()) => eprintln!("logs of the run are kept in {}", kept.display()),
                Err(e) => eprintln!("logs of the run could not be kept: {e:#}"),
            }
        }
        clean(&self.id, &self.path);
    }
}

/// Cleans up after runs whose owner is gone, as every new run does.
///
/// # Errors
/// The place for runs cannot be written.
pub fn sweep_crashed() -> Result<()> {
    let root = paths::run_root();
    fs::create_dir_all(&root).with_context(|| format!("create {}", root.display()))?;
    let gate = File::create(root.join("lock"))?;
    gate.lock()?;
    sweep(&root);
    Ok(())
}

/// What a pid file says: the process and when it started, in clock ticks since boot, because pids are used again.
pub(crate) fn write_pid(path: &Path, pid: i32) -> Result<()> {
    let started = start_time(pid).with_context(|| format!("process {pid} ended at once"))?;
    fs::write(path, format!("{pid} {started}\n")).with_context(|| format!("write {}", path.display()))
}

/// Removes every run whose owner is gone.
fn sweep(root: &Path) {
    for path in dirs_in(&root.join("runs")) {
        let Some(id) = path.file_name().and_then(|n| n.to_str()) else { continue };
        let orphaned = match File::open(path.join("owner")) {
            Ok(owner) => owner.try_lock().is_ok(),
            // The gate is ours, so nobody is between making the directory and locking the file.
            Err(_) => true,
        };
        if orphaned {
            eprintln!("lab: cleaning up after the run {id}, which did not end well");
            clean(id, &path);
        }
    }
}

/// Ends everything that carries the run's name. Goes on after every failure: there may be more to clean.
fn clean(id: &str, path: &Path) {
    for pid_file in files_in(&path.join("pids")) {
        if let Some(pid) = living(&pid_file) {
            kill_and_see_it_gone(pid);
        }
    }
    for name in netns::names_with_prefix(&netns_prefix(id)) {
        for pid in netns::pids(&name) {
            kill_and_see_it_gone(pid);
        }
        if let Err(e) = Netns::named(&name).delete() {
            eprintln!("lab: {e:#}");
        }
    }
    if let Err(e) = fs::remove_dir_all(path) {
        eprintln!("lab: remove {}: {e}", path.display());
    }
}

fn netns_prefix(id: &str) -> String {
    format!("patina-{id}-")
}

/// The process of a pid file when it is still the one that the file was written for.
fn living(pid_file: &Path) -> Option<i32> {
    let text = fs::read_to_string(pid_file).ok()?;
    let (pid, started) = text.trim().split_once(' ')?;
    let pid = pid.parse().ok()?;
    (start_time(pid)? == started).then_some(pid)
}

/// Field 22 of /proc/PID/stat, counted after the command name, which may hold anything.
fn start_time(pid: i32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(19).map(str::to_owned)
}

fn kill_and_see_it_gone(pid: i32) {
    if kill(Pid::from_raw(pid), Signal::SIGKILL).is_err() {
        return; // gone already
    }
    let gone = crate::wait::until_blocking("it is gone", crate::wait::secs(5), || {
        // A zombie holds nothing any more; its parent, if it is us, reaps it.
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().next());
        Ok(crate::wait::Seen::when(matches!(state, None | Some("Z" | "X")), stat.clone()))
    });
    if let Err(e) = gone {
        eprintln!("lab: process {pid}: {e:#}");
    }
}

fn copy_logs(logs: &[PathBuf], to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for log in logs {
        if let Some(name) = log.file_name() {
            fs::copy(log, to.join(name))?;
        }
    }
    Ok(())
}

fn files_in(dir: &Path) -> Vec<PathBuf> {
    entries(dir).into_iter().filter(|p| p.is_file()).collect()
}

fn dirs_in(dir: &Path) -> Vec<PathBuf> {
    entries(dir).into_iter().filter(|p| p.is_dir()).collect()
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new(); // not made yet
    };
    entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
}
