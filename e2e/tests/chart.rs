//! The Helm chart, without a cluster: lint, the schema against good and bad values, rendered goldens, the CRDs.
//!
//! A values file in charts/patina/tests/values says in comments what becomes of it:
//! `# expect: ok` or `# expect: error: TEXT`, `# renders: TEXT`, `# lacks: TEXT`, `# golden: NAME`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failed expectation is a failed test

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use patina_e2e::paths;
use patina_e2e::tools::Tool;

/// The line that the chart adds to each CRD.
const KEEP: &str = "    helm.sh/resource-policy: keep\n";

#[test]
fn lint_finds_nothing() {
    let (ok, output) = helm(&["lint", "--strict", "--quiet", chart().to_str().unwrap()]);
    assert!(ok && !output.contains("[WARNING]") && !output.contains("[ERROR]"), "{output}");
}

#[test]
fn each_values_file_is_taken_or_refused_as_it_says() {
    let files = files(&chart().join("tests/values"));
    assert!(files.len() >= 20, "only {} values files: where are the others?", files.len());
    let mut wrong = String::new();
    for (name, text) in &files {
        let case = Case::read(name, text);
        let (ok, output) = template(&["-f", chart().join("tests/values").join(name).to_str().unwrap()]);
        for complaint in case.judge(ok, &output) {
            wrong.push_str(&format!("{name}: {complaint}\n"));
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// `UPDATE_GOLDEN=1` writes them anew. The lab runs what default.yaml says.
#[test]
fn what_is_rendered_is_what_was_reviewed() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let folder = chart().join("tests/golden");
    let mut rendered = BTreeMap::new();
    for (name, text) in files(&chart().join("tests/values")) {
        for golden in Case::read(&name, &text).goldens {
            let values = chart().join("tests/values").join(&name);
            let (ok, output) = template(&["-f", values.to_str().unwrap(), "--set", "crds.enabled=false"]);
            assert!(ok, "{name}: {output}");
            if update {
                fs::write(folder.join(format!("{golden}.yaml")), &output).unwrap();
            }
            rendered.insert(format!("{golden}.yaml"), output);
        }
    }
    let reviewed = files(&folder);
    assert!(rendered.contains_key("default.yaml"), "no values file renders the default");
    let names = |set: &BTreeMap<String, String>| set.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&rendered), names(&reviewed), "a golden without its values file, or the reverse");
    for (name, output) in &rendered {
        let difference =
            output.lines().zip(reviewed[name].lines()).enumerate().find(|(_, (new, old))| new != old);
        assert!(
            output == &reviewed[name],
            "{name} differs, first at {difference:?} (line, (now, reviewed)); if it should, run with UPDATE_GOLDEN=1"
        );
    }
}

#[test]
fn the_crds_are_those_that_the_types_generate() {
    let generated = files(&paths::crds_yaml());
    assert!(generated.len() >= 9, "crds/yaml has {} files: run `make gen`", generated.len());
    let copied = files(&chart().join("files/crds"));
    let names = |set: &BTreeMap<String, String>| set.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&generated), names(&copied), "run `make gen`");
    for (name, text) in &generated {
        assert!(text == &copied[name], "charts/patina/files/crds/{name} is stale: run `make gen`");
    }
}

#[test]
fn each_crd_is_rendered_whole_and_kept_at_uninstall() {
    let (ok, output) = template(&["--show-only", "templates/crds.yaml"]);
    assert!(ok, "{output}");
    let rendered: Vec<String> =
        output.split("\n---\n").map(|part| without_keep(part.trim_start_matches("---\n"))).collect();
    let copied = files(&chart().join("files/crds"));
    assert_eq!(rendered.len(), copied.len());
    assert_eq!(output.matches(KEEP).count(), copied.len(), "each CRD says once that it is kept");
    for (name, text) in &copied {
        let text = text.split_once("---\n").map_or(text.as_str(), |(_, crd)| crd).trim();
        assert!(rendered.iter().any(|one| one == text), "{name} is not rendered as it is");
    }
}

#[test]
fn chart_and_binaries_have_one_version() {
    let text = fs::read_to_string(chart().join("Chart.yaml")).unwrap();
    for key in ["version", "appVersion"] {
        let line = format!("{key}: {}", env!("CARGO_PKG_VERSION"));
        assert!(text.lines().any(|found| found == line), "Chart.yaml lacks `{line}`");
    }
}

/// What a values file says of itself.
#[derive(Debug, Default)]
struct Case {
    error: Option<String>,
    renders: Vec<String>,
    lacks: Vec<String>,
    goldens: Vec<String>,
}

impl Case {
    fn read(name: &str, text: &str) -> Case {
        let mut case = Case::default();
        let mut expected = false;
        for line in text.lines().filter_map(|line| line.strip_prefix("# ")) {
            match line.split_once(": ") {
                Some(("expect", "ok")) => expected = true,
                Some(("expect", rest)) => {
                    expected = true;
                    let error = rest.strip_prefix("error: ");
                    case.error = Some(error.unwrap_or_else(|| panic!("{name}: expect: {rest}?")).to_owned());
                }
                Some(("renders", rest)) => case.renders.push(rest.to_owned()),
                Some(("lacks", rest)) => case.lacks.push(rest.to_owned()),
                Some(("golden", rest)) => case.goldens.push(rest.to_owned()),
                _ => {} // words
            }
        }
        assert!(expected, "{name} does not say `# expect: ok` or `# expect: error: TEXT`");
        assert_eq!(
            name.starts_with("bad-"),
            case.error.is_some(),
            "{name}: the name and the expectation disagree"
        );
        case
    }

    fn judge(&self, ok: bool, output: &str) -> Vec<String> {
        let mut complaints = Vec::new();
        match &self.error {
            None if !ok => return vec![format!("refused: {output}")],
            Some(_) if ok => return vec!["taken, and should not be".to_owned()],
            Some(text) if !output.contains(text) => {
                complaints.push(format!("wanted `{text}`, got: {output}"))
            }
            _ => {}
        }
        complaints
            .extend(self.renders.iter().filter(|x| !output.contains(*x)).map(|x| format!("lacks `{x}`")));
        complaints.extend(self.lacks.iter().filter(|x| output.contains(*x)).map(|x| format!("has `{x}`")));
        complaints
    }
}

fn chart() -> PathBuf {
    paths::workspace().join("charts/patina")
}

/// The files of a folder by name, with their text.
fn files(folder: &Path) -> BTreeMap<String, String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    entries
        .map(|entry| {
            let path = entry.unwrap().path();
            (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(&path).unwrap())
        })
        .collect()
}

fn template(arguments: &[&str]) -> (bool, String) {
    let home = chart();
    let fixed = ["template", "patina", home.to_str().unwrap(), "-n", "metallb-system"];
    helm(&[&fixed[..], &["--kube-version", "1.36.3"], arguments].concat())
}

/// Runs helm away from the user's own settings; what it prints is stdout and then stderr.
fn helm(arguments: &[&str]) -> (bool, String) {
    let own = paths::target_dir().join("helm");
    let output = Command::new(Tool::Helm.path().unwrap())
        .args(arguments)
        .env("HELM_CACHE_HOME", own.join("cache"))
        .env("HELM_CONFIG_HOME", own.join("config"))
        .env("HELM_DATA_HOME", own.join("data"))
        .env("KUBECONFIG", "/dev/null")
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.success(), text(&output.stdout) + &text(&output.stderr))
}

/// The CRD as it was before the chart added its line.
fn without_keep(rendered: &str) -> String {
    let body: String =
        rendered.lines().skip_while(|line| line.starts_with('#')).map(|l| format!("{l}\n")).collect();
    let alone = format!("metadata:\n  annotations:\n{KEEP}");
    let text = if body.contains(&format!("{alone}    ")) {
        body.replacen(KEEP, "", 1)
    } else {
        body.replacen(&alone, "metadata:\n", 1)
    };
    text.trim().to_owned()
}
