//! Interfaces that are never announced on: the file of MetalLB's ConfigMap `metallb-excludel2`.

use std::io;
use std::path::Path;

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
pub struct Exclude(RegexSet);

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
        let shown = || path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text, &shown()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Self::new(&DEFAULTS).map_err(|e| ExcludeError::Pattern(shown(), e))
            }
            Err(error) => Err(ExcludeError::Read(shown(), error)),
        }
    }

    /// Nothing is excluded.
    #[must_use]
    pub fn nothing() -> Self {
        Self(RegexSet::empty())
    }

    /// Whether this interface is excluded.
    #[must_use]
    pub fn matches(&self, interface: &str) -> bool {
        self.0.is_match(interface)
    }

    fn parse(text: &str, shown: &str) -> Result<Self, ExcludeError> {
        let file: File =
            serde_saphyr::from_str(text).map_err(|e| ExcludeError::Yaml(shown.to_owned(), e.to_string()))?;
        Self::new(&file.patterns).map_err(|e| ExcludeError::Pattern(shown.to_owned(), e))
    }

    /// Patterns hold from the start of the name, whether or not they say `^`: `eth1` must not exclude `veth1`.
    fn new<P: AsRef<str>>(patterns: &[P]) -> Result<Self, regex::Error> {
        RegexSet::new(patterns.iter().map(|pattern| format!("^(?:{})", pattern.as_ref()))).map(Self)
    }
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
        let exclude = Exclude::parse(text, "test").unwrap();
        assert!(exclude.matches("eth1") && exclude.matches("wg0"));
        assert!(!exclude.matches("eth10") && !exclude.matches("docker0") && !exclude.matches("awg0"));
    }

    #[test]
    fn a_bad_file_is_refused_with_its_place() {
        for (text, part) in [
            ("announcedInterfacesToExclude:\n- '('\n", "("),
            ("exclude: [a]", "exclude"),
            ("- a", "announced"),
        ] {
            let error = Exclude::parse(text, "excludel2.yaml").unwrap_err().to_string();
            assert!(error.contains("excludel2.yaml") && error.contains(part), "{error}");
        }
    }
}
