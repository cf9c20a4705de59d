//! Interfaces that are never announced on: the file of MetalLB's ConfigMap `metallb-excludel2`.
//!
//! The file is read again every few seconds, because a ConfigMap that is mounted changes under us (the kubelet swaps a link,
//! of which inotify tells nothing about the file). One that is no good then changes nothing: what held goes on.

use std::io;
use std::path::{Path, PathBuf};

use regex::RegexSet;

/// Where MetalLB's manifests mount it.
pub const DEFAULT_PATH: &str = "/etc/metallb/excludel2.yaml";

/// In force when there is no file (api.md 4.2).
const DEFAULTS: [&str; 14] = [
    "^docker.*",
    "^cbr.*",
    "^dummy.*",
    "^virbr.*",
    "^lxcbr.*",
    "^veth.*",
    "^lo$",
    "^cali.*",
    "^tunl.*",
    "^flannel.*",
    "^kube-ipvs.*",
    "^cni.*",
    "^nodelocaldns.*",
    "^lxc.*",
];

/// Which interface names are excluded.
#[derive(Clone, Debug)]
pub struct Exclude {
    patterns: RegexSet,
    /// Where they are from; `None`: nothing is read again.
    path: Option<PathBuf>,
    /// What was in the file when it was last looked at, good or not; `None`: there was no file, or it was not readable.
    seen: Option<String>,
}

/// Why the file is no good. The speaker does not start on it: it would announce where the user forbade it.
#[derive(Debug, thiserror::Error)]
pub enum ExcludeError {
    /// Present, but not readable.
    #[error("cannot read {0}: {1}")]
    Read(String, #[source] io::Error),
    /// Not the YAML that is expected.
    #[error("{0}: {1}; expected a list of regular expressions under `announcedInterfacesToExclude`")]
    Yaml(String, String),
    /// A pattern does not compile.
    #[error("{0}: {1}")]
    Pattern(String, #[source] regex::Error),
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(rename = "announcedInterfacesToExclude", default)]
    patterns: Vec<String>,
}

impl Exclude {
    /// Reads the file; the defaults when it does not exist.
    ///
    /// # Errors
    /// It exists and is no good.
    pub fn load(path: &Path) -> Result<Self, ExcludeError> {
        let text = read(path)?;
        let patterns = patterns(text.as_deref(), path)?;
        Ok(Self { patterns, path: Some(path.to_owned()), seen: text })
    }

    /// Looks at the file again. True when something else is excluded now.
    ///
    /// # Errors
    /// It is no good, and was not so when it was last looked at. What held holds.
    pub fn reread(&mut self) -> Result<bool, ExcludeError> {
        let Some(path) = &self.path else { return Ok(false) };
        let text = match read(path) {
            Ok(text) if text == self.seen => return Ok(false),
            Ok(text) => text,
            // Not readable is told once, as a file that is empty and no good would be.
            Err(error) => return if self.seen.take().is_some() { Err(error) } else { Ok(false) },
        };
        let patterns = patterns(text.as_deref(), path);
        self.seen = text;
        let patterns = patterns?;
        let changed = patterns.patterns() != self.patterns.patterns();
        self.patterns = patterns;
        Ok(changed)
    }

    /// Nothing is excluded.
    #[must_use]
    pub fn nothing() -> Self {
        Self { patterns: RegexSet::empty(), path: None, seen: None }
    }

    /// Whether this interface is excluded.
    #[must_use]
    pub fn matches(&self, interface: &str) -> bool {
        self.patterns.is_match(interface)
    }
}

/// The text of the file; `None`: there is none.
fn read(path: &Path) -> Result<Option<String>, ExcludeError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ExcludeError::Read(path.display().to_string(), error)),
    }
}

fn patterns(text: Option<&str>, path: &Path) -> Result<RegexSet, ExcludeError> {
    let shown = || path.display().to_string();
    let Some(text) = text else {
        return compile(&DEFAULTS).map_err(|error| ExcludeError::Pattern(shown(), error));
    };
    let file: File =
        serde_saphyr::from_str(text).map_err(|error| ExcludeError::Yaml(shown(), error.to_string()))?;
    compile(&file.patterns).map_err(|error| ExcludeError::Pattern(shown(), error))
}

/// Patterns hold from the start of the name, whether or not they say `^`: `eth1` must not exclude `veth1`.
fn compile<P: AsRef<str>>(patterns: &[P]) -> Result<RegexSet, regex::Error> {
    RegexSet::new(patterns.iter().map(|pattern| format!("^(?:{})", pattern.as_ref())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_hold_when_there_is_no_file() {
        let exclude = Exclude::load(Path::new("/nonexistent/excludel2.yaml")).unwrap();
        for name in ["docker0", "veth1a2b", "lo", "cali123", "cni0", "flannel.1", "kube-ipvs0", "lxc_health"]
        {
            assert!(exclude.matches(name), "{name}");
        }
        for name in ["eth0", "bond0", "br0", "lo0x", "enp1s0", "wlan0"] {
            assert!(!exclude.matches(name), "{name}");
        }
    }

    #[test]
    fn the_file_of_metallb_replaces_the_defaults() {
        let text = "announcedInterfacesToExclude:\n- ^eth1$\n- \"wg.*\"\n";
        let exclude = patterns(Some(text), Path::new("test")).unwrap();
        assert!(exclude.is_match("eth1") && exclude.is_match("wg0"));
        assert!(!exclude.is_match("eth10") && !exclude.is_match("docker0") && !exclude.is_match("awg0"));
    }

    #[test]
    fn a_bad_file_is_refused_with_its_place() {
        for (text, part) in [
            ("announcedInterfacesToExclude:\n- '('\n", "("),
            ("exclude: [a]", "exclude"),
            ("- a", "announced"),
        ] {
            let error = patterns(Some(text), Path::new("excludel2.yaml")).unwrap_err().to_string();
            assert!(error.contains("excludel2.yaml") && error.contains(part), "{error}");
        }
    }

    /// A file of its own, gone with the test.
    struct Temporary(PathBuf);

    impl Temporary {
        fn new(name: &str) -> Self {
            Self(std::env::temp_dir().join(format!("patina-exclude-{name}-{}", std::process::id())))
        }

        fn write(&self, text: &str) {
            std::fs::write(&self.0, text).unwrap();
        }
    }

    impl Drop for Temporary {
        fn drop(&mut self) {
            let _never_written = std::fs::remove_file(&self.0);
        }
    }

    #[test]
    fn a_new_file_holds_and_a_bad_one_changes_nothing_and_is_told_once() {
        let file = Temporary::new("reread");
        file.write("announcedInterfacesToExclude: [eth1]");
        let mut exclude = Exclude::load(&file.0).unwrap();
        assert!(!exclude.reread().unwrap());
        file.write("announcedInterfacesToExclude: [eth2]");
        assert!(exclude.reread().unwrap());
        assert!(exclude.matches("eth2") && !exclude.matches("eth1"));
        file.write("announcedInterfacesToExclude: ['(']");
        assert!(exclude.reread().is_err());
        assert!(!exclude.reread().unwrap(), "told already");
        assert!(exclude.matches("eth2"));
        file.write("# the same\nannouncedInterfacesToExclude: [eth2]");
        assert!(!exclude.reread().unwrap(), "nothing else is excluded");
        std::fs::remove_file(&file.0).unwrap();
        assert!(exclude.reread().unwrap());
        assert!(exclude.matches("docker0") && !exclude.matches("eth2"), "the defaults");
        assert!(!Exclude::nothing().reread().unwrap());
    }
}
