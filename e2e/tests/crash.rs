//! What a crash leaves behind, and who cleans it up.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failed expectation is a failed test

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use patina_e2e::control_plane::{ControlPlane, Options};
use patina_e2e::netns::Netns;
use patina_e2e::process::Spec;
use patina_e2e::rundir::RunDir;
use patina_e2e::wait::{self, Seen, secs};

/// Set for the process that is to crash: this test itself, started again.
const VICTIM: &str = "PATINA_TEST_VICTIM";

#[test]
fn the_next_run_cleans_up_after_a_crash() {
    let place = std::env::temp_dir().join(format!("patina-crash-{}", std::process::id()));
    if std::env::var_os(VICTIM).is_some() {
        be_the_victim();
    }
    std::fs::create_dir_all(&place).unwrap();
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_next_run_cleans_up_after_a_crash", "--nocapture"])
        .env(VICTIM, "1")
        .env("PATINA_RUN_DIR", &place)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let run = wait::until_blocking("the victim has started its processes", secs(30), || {
        let runs = list(&place.join("runs"));
        let ready = runs.iter().find(|run| list(&run.join("pids")).len() == 2);
        Ok(ready.cloned().map_or_else(|| Seen::Not(format!("{runs:?}")), Seen::Done))
    })
    .unwrap();
    let id = run.file_name().unwrap().to_str().unwrap().to_owned();
    let netns = format!("/run/netns/patina-{id}-n1");
    let pids: Vec<String> = list(&run.join("pids")).iter().map(|file| pid_in(file)).collect();
    assert!(Path::new(&netns).exists());

    // SIGKILL: no destructor runs. Its children get the parent-death signal; the rest is left.
    victim.kill().unwrap();
    victim.wait().unwrap();
    assert!(run.exists() && Path::new(&netns).exists(), "a crash leaves these for the next run");

    let next = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_run_starts_and_ends", "--nocapture"])
        .env("PATINA_RUN_DIR", &place)
        .output()
        .unwrap();
    assert!(next.status.success(), "{}", String::from_utf8_lossy(&next.stderr));
    assert!(!run.exists(), "{} is left", run.display());
    assert!(!Path::new(&netns).exists(), "{netns} is left");
    for pid in pids {
        let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        assert!(!command.contains("sleep"), "process {pid} is left");
    }
    std::fs::remove_dir_all(&place).unwrap();
}

#[test]
fn a_run_starts_and_ends() {
    let run = RunDir::create().unwrap();
    let path = run.path().to_path_buf();
    assert!(path.is_dir());
    drop(run);
    assert!(!path.exists());
}

#[test]
fn a_living_run_is_left_alone_and_its_name_is_taken() {
    let name = format!("taken-{}", std::process::id());
    let first = RunDir::named(&name).unwrap();
    assert!(RunDir::named(&name).unwrap_err().to_string().contains("is running"));
    assert!(first.path().is_dir());
}

#[test]
fn a_process_outlives_the_thread_that_started_it_and_not_its_run() {
    let run = Arc::new(RunDir::create().unwrap());
    let of_thread = Arc::clone(&run);
    let mut process =
        std::thread::spawn(move || Spec::new("sleep", "sleep").arg("600").spawn(&of_thread).unwrap())
            .join()
            .unwrap();
    let pid = process.pid();
    assert!(process.exited().is_none());
    drop(process);
    drop(run);
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
}

#[tokio::test]
async fn a_control_plane_in_a_namespace_is_reached_from_both_sides() {
    let run = Arc::new(RunDir::create().unwrap());
    let netns = Netns::create(&run, "net").unwrap();
    netns.ip(&["addr", "add", "172.25.7.1/24", "dev", "lo"]).unwrap();
    let api: SocketAddr = "172.25.7.1:6443".parse().unwrap();
    let options =
        Options { run: Some(Arc::clone(&run)), inside: Some((netns.clone(), api)), ..Options::default() };
    let plane = ControlPlane::start(options).await.unwrap();
    // From here, through the relay: client and kubectl.
    plane.client().apiserver_version().await.unwrap();
    plane.kubectl(&["get", "endpointslices"]).await.unwrap();
    // From inside, at its own address.
    let inside = plane.inside_kubeconfig_for("default", "default").await.unwrap();
    let kubectl = patina_e2e::tools::Tool::Kubectl.path().unwrap();
    let whoami = ["--kubeconfig", inside.to_str().unwrap(), "auth", "whoami"];
    let said = netns.exec(kubectl.to_str().unwrap(), &whoami).unwrap();
    assert!(said.contains("system:serviceaccount:default:default"), "{said}");
}

/// Starts what a run has, and waits to be killed.
fn be_the_victim() -> ! {
    let run = Arc::new(RunDir::create().unwrap());
    let netns = Netns::create(&run, "n1").unwrap();
    let _inside = Spec::new("inside", "sleep").arg("600").netns(Some(&netns)).spawn(&run).unwrap();
    let _outside = Spec::new("outside", "sleep").arg("600").spawn(&run).unwrap();
    loop {
        std::thread::park();
    }
}

fn list(dir: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(dir).map(|entries| entries.map(|e| e.unwrap().path()).collect()).unwrap_or_default()
}

fn pid_in(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap().split(' ').next().unwrap().to_owned()
}
