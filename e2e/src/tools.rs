//! The lab's tools: found where the ecosystem keeps them, else in our cache, else built from the Go module proxy.
//!
//! Order per binary: `$KUBEBUILDER_ASSETS/<tool>`, then `<cache>/<tool>-<version>/<tool>`, then `go build` of the
//! module below `e2e/tools` that pins it, into the cache.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::paths;

/// A program that the lab runs and that is not ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tool {
    Etcd,
    KubeApiserver,
    KubeControllerManager,
    KubeProxy,
    Kubectl,
    Helm,
}

impl Tool {
    pub const ALL: [Tool; 6] = [
        Tool::Etcd,
        Tool::KubeApiserver,
        Tool::KubeControllerManager,
        Tool::KubeProxy,
        Tool::Kubectl,
        Tool::Helm,
    ];

    /// The file name of the program.
    pub fn name(self) -> &'static str {
        match self {
            Tool::Etcd => "etcd",
            Tool::KubeApiserver => "kube-apiserver",
            Tool::KubeControllerManager => "kube-controller-manager",
            Tool::KubeProxy => "kube-proxy",
            Tool::Kubectl => "kubectl",
            Tool::Helm => "helm",
        }
    }

    /// The tool of that file name.
    pub fn by_name(name: &str) -> Option<Tool> {
        Tool::ALL.into_iter().find(|tool| tool.name() == name)
    }

    /// The path of the program, built first if it has to be. Blocking; a build takes minutes on a cold Go cache.
    ///
    /// # Errors
    /// Go is missing or the build failed; the text says what to install or shows the end of the build's output.
    pub fn path(self) -> Result<PathBuf> {
        if let Some(path) = self.in_assets() {
            return Ok(path);
        }
        let source = self.source();
        let version = pinned_version(source.module_dir(), source.versioned_by)?;
        let home = paths::cache().join(format!("{}-{version}", self.name()));
        let path = home.join(self.name());
        if path.is_file() {
            return Ok(path);
        }
        fs::create_dir_all(&home).with_context(|| format!("create the tool cache {}", home.display()))?;
        // Two runs that need the same tool: the second waits here and finds it built.
        let lock = File::create(home.join(".lock"))?;
        lock.lock().with_context(|| format!("lock {}", home.display()))?;
        if !path.is_file() {
            self.build(&source, &version, &path)?;
        }
        Ok(path)
    }

    fn in_assets(self) -> Option<PathBuf> {
        let dir = std::env::var_os("KUBEBUILDER_ASSETS").filter(|v| !v.is_empty())?;
        Some(PathBuf::from(dir).join(self.name())).filter(|path| path.is_file())
    }

    fn source(self) -> Source {
        let kube = |package| Source { module: "kube", package, versioned_by: "k8s.io/kubernetes" };
        match self {
            Tool::Etcd => Source {
                module: "etcd",
                package: "go.etcd.io/etcd/server/v3",
                versioned_by: "go.etcd.io/etcd/server/v3",
            },
            Tool::Helm => Source {
                module: "helm",
                package: "helm.sh/helm/v3/cmd/helm",
                versioned_by: "helm.sh/helm/v3",
            },
            Tool::KubeApiserver => kube("k8s.io/kubernetes/cmd/kube-apiserver"),
            Tool::KubeControllerManager => kube("k8s.io/kubernetes/cmd/kube-controller-manager"),
            Tool::KubeProxy => kube("k8s.io/kubernetes/cmd/kube-proxy"),
            Tool::Kubectl => kube("k8s.io/kubernetes/cmd/kubectl"),
        }
    }

    fn build(self, source: &Source, version: &str, path: &Path) -> Result<()> {
        let started = Instant::now();
        eprintln!("tools: building {} {version} (once; kept in {})", self.name(), paths::cache().display());
        // Built beside its place and renamed into it: an interrupted build leaves nothing that looks finished.
        let unfinished = path.with_extension("building");
        let output = Command::new("go")
            .current_dir(source.module_dir())
            .env("CGO_ENABLED", "0")
            .env("GOFLAGS", "-mod=readonly")
            .env("GOWORK", "off")
            .args(["build", "-trimpath", "-ldflags", &self.ldflags(version)?, "-o"])
            .arg(&unfinished)
            .arg(source.package)
            .stdin(Stdio::null())
            .output()
            .context("run go: the lab's tools are built with Go 1.26 or newer (https://go.dev/dl)")?;
        if !output.status.success() {
            bail!(
                "go build of {} {version} failed ({}):\n{}",
                self.name(),
                output.status,
                String::from_utf8_lossy(&output.stderr)
            );
        }
        fs::rename(&unfinished, path)?;
        eprintln!("tools: built {} {version} in {:.0?}", self.name(), started.elapsed());
        Ok(())
    }

    /// Strips symbols and stamps the version that the program reports (Kubernetes reports v0.0.0-master otherwise,
    /// and Helm renders charts for Kubernetes 1.20).
    fn ldflags(self, version: &str) -> Result<String> {
        let strip = "-s -w";
        let stamped = match self {
            Tool::Etcd => String::new(),
            Tool::Helm => {
                let kube = pinned_version(paths::tool_modules().join("kube"), "k8s.io/kubernetes")?;
                let (major, minor) = major_minor(&kube)?;
                let mut flags = format!("-X helm.sh/helm/v3/internal/version.version={version}");
                for package in ["lint/rules", "chartutil"] {
                    flags += &format!(" -X helm.sh/helm/v3/pkg/{package}.k8sVersionMajor={major}");
                    flags += &format!(" -X helm.sh/helm/v3/pkg/{package}.k8sVersionMinor={minor}");
                }
                flags
            }
            _ => {
                let (major, minor) = major_minor(version)?;
                ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"]
                    .map(|p| {
                        format!("-X {p}.gitVersion={version} -X {p}.gitMajor={major} -X {p}.gitMinor={minor}")
                    })
                    .join(" ")
            }
        };
        Ok(format!("{strip} {stamped}").trim_end().to_owned())
    }
}

/// Where a tool comes from.
struct Source {
    /// Directory below `e2e/tools`.
    module: &'static str,
    /// The `main` package.
    package: &'static str,
    /// The module whose version is the tool's.
    versioned_by: &'static str,
}

impl Source {
    fn module_dir(&self) -> PathBuf {
        paths::tool_modules().join(self.module)
    }
}

/// The version that go.mod in `dir` requires of `module`.
fn pinned_version(dir: impl AsRef<Path>, module: &str) -> Result<String> {
    let path = dir.as_ref().join("go.mod");
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let version = required_version(&text, module);
    version.with_context(|| format!("{} does not require {module}", path.display()))
}

fn required_version(go_mod: &str, module: &str) -> Option<String> {
    go_mod.lines().find_map(|line| {
        let mut words = line.trim().trim_start_matches("require ").split_whitespace();
        (words.next()? == module).then(|| words.next().filter(|v| v.starts_with('v')))?.map(str::to_owned)
    })
}

fn major_minor(version: &str) -> Result<(&str, &str)> {
    let mut parts = version.trim_start_matches('v').split('.');
    match (parts.next(), parts.next()) {
        (Some(major), Some(minor)) => Ok((major, minor)),
        _ => bail!("{version} is not a version"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_the_module_that_pins_the_tool() {
        let go_mod = "module x\n\ntool a.b/c/cmd\n\nrequire (\n\ta.b/c v1.2.3 // indirect\n)\n\nrequire d.e/f v0.1.0\n";
        assert_eq!(required_version(go_mod, "a.b/c"), Some("v1.2.3".to_owned()));
        assert_eq!(required_version(go_mod, "d.e/f"), Some("v0.1.0".to_owned()));
        assert_eq!(required_version(go_mod, "a.b"), None);
    }

    #[test]
    fn every_tool_is_pinned_by_its_module() {
        for tool in Tool::ALL {
            let source = tool.source();
            let version = pinned_version(source.module_dir(), source.versioned_by).unwrap();
            assert!(major_minor(&version).is_ok(), "{}: {version}", tool.name());
            let go_mod = fs::read_to_string(source.module_dir().join("go.mod")).unwrap();
            assert!(go_mod.contains(source.package), "{} is not a tool of its module", tool.name());
        }
    }
}
