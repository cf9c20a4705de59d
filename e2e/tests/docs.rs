//! Every command of the user guide, typed into a real lab: each page in a lab of its own, in the order of the page.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failed expectation is a failed test

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};

use patina_e2e::docs::{self, Kind, Place};
use patina_e2e::lab::{Lab, Options};
use patina_e2e::tools::Tool;
use patina_e2e::wait::{self, Seen, secs};
use patina_e2e::{binaries, paths};

/// One test each, below.
const PAGES: [&str; 9] = [
    "bgp",
    "from-metallb",
    "install",
    "layer2",
    "plan",
    "pools",
    "reserved-addresses",
    "troubleshooting",
    "validation",
];

/// A command that only looks is asked again for so long.
const PATIENCE: std::time::Duration = secs(30);

#[test]
fn every_page_of_the_guide_has_its_test() {
    let folder = paths::workspace().join("docs/guide");
    let pages: BTreeSet<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(pages, PAGES.map(str::to_owned).into(), "the pages there are, and the pages with a test");
}

#[test]
fn bgp() {
    follow("bgp");
}

#[test]
fn from_metallb() {
    follow("from-metallb");
}

#[test]
fn install() {
    follow("install");
}

#[test]
fn layer2() {
    follow("layer2");
}

#[test]
fn plan() {
    follow("plan");
}

#[test]
fn pools() {
    follow("pools");
}

#[test]
fn reserved_addresses() {
    follow("reserved-addresses");
}

#[test]
fn troubleshooting() {
    follow("troubleshooting");
}

#[test]
fn validation() {
    follow("validation");
}

/// Does what the page says, in a lab of its own.
fn follow(page: &str) {
    static ONE_LAB_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_LAB_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let path = paths::workspace().join(format!("docs/guide/{page}.md"));
    let blocks = docs::blocks(&fs::read_to_string(&path).unwrap()).unwrap();
    let options = Options { nodes: 2, ..Options::default() };
    let lab = Lab::up(options, |_| ()).unwrap_or_else(|e| panic!("{e:#}"));
    let reader = Reader::at(&lab);
    let mut done = 0;
    for block in blocks {
        let result = match block.kind {
            Kind::Apply { yaml } => lab.kubectl().apply(&yaml).map(drop).map_err(|e| format!("{e:#}")),
            Kind::Values { yaml } => reader.values(&yaml),
            Kind::Console { commands, place, wait, fails } => {
                commands.iter().try_for_each(|command| reader.types(command, place, wait, fails))
            }
            Kind::Untested { .. } | Kind::Plain => continue,
        };
        done += 1;
        if let Err(complaint) = result {
            lab.keep_report();
            panic!("docs/guide/{page}.md, block at line {}: {complaint}", block.line);
        }
    }
    assert!(done > 0, "{page}: nothing was run");
    reader.nothing_was_forbidden();
    println!("{page}: {done} blocks");
}

/// Somebody who reads the guide with a shell open.
struct Reader<'a> {
    lab: &'a Lab,
    /// kubectl, its plugin, and helm.
    bin: PathBuf,
}

impl<'a> Reader<'a> {
    fn at(lab: &'a Lab) -> Self {
        let bin = lab.dir().join("bin");
        fs::create_dir_all(&bin).unwrap();
        let programs = [
            (Tool::Kubectl.path().unwrap(), "kubectl"),
            (Tool::Helm.path().unwrap(), "helm"),
            (binaries::path("kubectl-patina").unwrap(), "kubectl-patina"),
        ];
        for (program, name) in programs {
            symlink(program, bin.join(name)).unwrap();
        }
        Self { lab, bin }
    }

    /// Types a command and compares what it prints.
    fn types(&self, command: &docs::Command, place: Place, wait: bool, fails: bool) -> Result<(), String> {
        let once = || {
            let output = self.shell(&command.text, place).output().map_err(|e| e.to_string())?;
            judge(&output, fails, &command.expected)
        };
        let result = if wait {
            wait::until_blocking("the page is right", PATIENCE, || {
                Ok(once().map_or_else(Seen::Not, Seen::Done))
            })
            .map_err(|e| format!("{e:#}"))
        } else {
            once()
        };
        result.map_err(|e| format!("line {}: `{}`: {e}", command.line, command.text))
    }

    fn shell(&self, text: &str, place: Place) -> Command {
        let mut shell = match place {
            Place::Host => Command::new("timeout"),
            Place::Client => self.lab.client_netns().command("timeout").unwrap(),
        };
        let path = std::env::var("PATH").unwrap();
        shell
            .args(["60", "bash", "-eo", "pipefail", "-c", text])
            .current_dir(paths::workspace())
            .env("PATH", format!("{}:{path}", self.bin.display()))
            .env("KUBECONFIG", self.lab.kubeconfig())
            .env("KUBECACHEDIR", self.lab.dir().join("kubectl-cache"))
            .env("KUBERC", "off");
        shell
    }

    /// The pages make our programs do most of what they can do, with the rights that the chart gives them.
    fn nothing_was_forbidden(&self) {
        let mut read = 0;
        for entry in fs::read_dir(self.lab.dir().join("logs")).unwrap() {
            let path = entry.unwrap().path();
            if !path.file_name().unwrap().to_string_lossy().starts_with("metallb-system_patina-") {
                continue;
            }
            read += 1;
            let log = fs::read_to_string(&path).unwrap();
            let line = log.lines().find(|line| line.to_lowercase().contains("forbidden"));
            assert_eq!(line, None, "{}: the chart does not grant what the program does", path.display());
        }
        assert!(read >= 4, "two controllers and two speakers have logs, not {read}");
    }

    /// Renders the chart with the values.
    fn values(&self, yaml: &str) -> Result<(), String> {
        let file = self.lab.dir().join("values.yaml");
        fs::write(&file, yaml).unwrap();
        let chart = paths::workspace().join("charts/patina");
        let output = helm_template(&self.bin, &chart, &file).output().map_err(|e| e.to_string())?;
        judge(&output, false, &["kind: Deployment".to_owned()])
    }
}

fn helm_template(bin: &Path, chart: &Path, values: &Path) -> Command {
    let mut helm = Command::new(bin.join("helm"));
    helm.arg("template").arg("patina").arg(chart).args(["--kube-version", "1.36.3", "-f"]).arg(values);
    helm
}

fn judge(output: &Output, fails: bool, expected: &[String]) -> Result<(), String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = text(&output.stdout) + &text(&output.stderr);
    if output.status.success() == fails {
        return Err(format!("{}, and the page says otherwise; it printed:\n{said}", output.status));
    }
    docs::missing(&said, expected).map_err(|line| format!("`{line}` is not in what it printed:\n{said}"))
}
