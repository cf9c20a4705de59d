//! What stands between a pod's process and this machine: the network namespace of its pod, a mount namespace with a
//! root of its own, and the user and capabilities of its securityContext.
//!
//! The root is a tmpfs with the machine's `/usr` (read-only), `/dev`, `/proc` and a `/sys` of the pod's network
//! namespace in it; programs and volumes are bound where the pod wants them. So `command: [/patina-speaker]` and
//! `mountPath: /etc/metallb` mean what they say, and nothing is written to the machine's own file system.
//!
//! All of it is one shell script per container, kept beside its log, that ends in `exec`: the process id that we
//! started is the container's, and it dies with the lab (`--pdeathsig`).

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Container, PodSpec, SecurityContext};

/// One path of the machine seen at another path in the container.
#[derive(Debug, Clone)]
pub(super) struct Bind {
    /// A file or a directory of the machine.
    pub from: PathBuf,
    /// Where the container sees it.
    pub to: PathBuf,
    /// Whether the container may write to it.
    pub writable: bool,
}

/// Who the process is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Credentials {
    /// `runAsUser`; 0 when absent, as in an image without USER.
    pub uid: i64,
    /// `runAsGroup`.
    pub gid: i64,
    /// Capabilities that it may have, in lower case without `cap_`; `None` = all that root has.
    pub capabilities: Option<Vec<String>>,
    /// `readOnlyRootFilesystem`.
    pub read_only_root: bool,
}

impl Credentials {
    /// The container's securityContext over the pod's.
    #[must_use]
    pub(super) fn of(spec: &PodSpec, container: &Container) -> Self {
        let none = SecurityContext::default();
        let own = container.security_context.as_ref().unwrap_or(&none);
        let pod = spec.security_context.as_ref();
        let uid = own.run_as_user.or_else(|| pod.and_then(|p| p.run_as_user)).unwrap_or(0);
        let gid = own.run_as_group.or_else(|| pod.and_then(|p| p.run_as_group)).unwrap_or(uid);
        let dropped = own.capabilities.as_ref().and_then(|c| c.drop.clone()).unwrap_or_default();
        let added = own.capabilities.as_ref().and_then(|c| c.add.clone()).unwrap_or_default();
        let drops_all = dropped.iter().any(|c| c.eq_ignore_ascii_case("all"));
        let capabilities = drops_all.then(|| added.iter().map(|c| capability(c)).collect());
        Self { uid, gid, capabilities, read_only_root: own.read_only_root_filesystem.unwrap_or(false) }
    }
}

/// `NET_RAW`, `CAP_NET_RAW` -> `net_raw`.
fn capability(name: &str) -> String {
    let lower = name.to_ascii_lowercase();
    lower.strip_prefix("cap_").unwrap_or(&lower).to_owned()
}

/// A container's surroundings, ready to be written as a script.
#[derive(Debug)]
pub(super) struct Sandbox {
    /// An empty directory of the machine: the mount point of the root.
    pub root: PathBuf,
    /// Programs and volumes.
    pub binds: Vec<Bind>,
    /// Names for `/etc/hosts`: the pod's own address and name.
    pub hosts: String,
    /// Who the process is.
    pub credentials: Credentials,
}

impl Sandbox {
    /// Writes the script for `argv` and returns the command line that runs it (in the pod's network namespace).
    ///
    /// # Errors
    /// The script cannot be written.
    pub(super) fn command(&self, script: &Path, argv: &[String]) -> Result<Vec<String>> {
        std::fs::create_dir_all(&self.root).with_context(|| format!("create {}", self.root.display()))?;
        std::fs::write(script, self.script(argv)).with_context(|| format!("write {}", script.display()))?;
        let words = ["unshare", "--mount", "--propagation", "private", "/bin/sh", "-e"];
        Ok(words.into_iter().map(str::to_owned).chain([script.display().to_string()]).collect())
    }

    fn script(&self, argv: &[String]) -> String {
        let mut s = format!("# Runs one container; written by the lab.\nR={}\n", quote_path(&self.root));
        s.push_str(ROOT);
        for bind in &self.binds {
            let (from, to) = (quote_path(&bind.from), quote_path(&bind.to));
            // A file is bound to a file, a directory to a directory.
            let _ = writeln!(
                s,
                "if [ -d {from} ]; then mkdir -p \"$R\"{to}; else mkdir -p \"$R\"{parent}; : > \"$R\"{to}; fi",
                parent = quote_path(bind.to.parent().unwrap_or(Path::new("/")))
            );
            let _ = writeln!(s, "mount --bind {from} \"$R\"{to}");
            if !bind.writable {
                let _ = writeln!(s, "mount -o remount,bind,ro \"$R\"{to}");
            }
        }
        let _ = writeln!(s, "printf '%s' {} > \"$R\"/etc/hosts", quote(&self.hosts));
        if self.credentials.read_only_root {
            s.push_str("mount -o remount,ro \"$R\"\n");
        }
        let _ = write!(s, "exec chroot \"$R\" /usr/bin/setpriv {}", self.privileges());
        for word in argv {
            let _ = write!(s, " {}", quote(word));
        }
        s.push('\n');
        s
    }

    fn privileges(&self) -> String {
        let mut words = Vec::new();
        let Credentials { uid, gid, capabilities, .. } = &self.credentials;
        if *uid != 0 {
            words.push(format!("--reuid={uid} --regid={gid} --clear-groups"));
        }
        if let Some(wanted) = capabilities {
            let bounding: String = wanted.iter().map(|c| format!(",+{c}")).collect();
            words.push(format!("--inh-caps=-all --bounding-set=-all{bounding} --no-new-privs"));
        }
        // Last: a change of user forgets it.
        words.push("--pdeathsig KILL --".to_owned());
        words.join(" ")
    }
}

/// The part of the root that every container has. A machine with a merged /usr has links where others have
/// directories.
const ROOT: &str = r#"mount -t tmpfs -o mode=755 tmpfs "$R"
for d in bin sbin lib lib32 lib64; do
  if [ -L "/$d" ]; then cp -P "/$d" "$R/$d"; elif [ -d "/$d" ]; then mkdir "$R/$d"; mount --bind "/$d" "$R/$d"; fi
done
mkdir -p "$R/usr" "$R/proc" "$R/sys" "$R/dev" "$R/etc" "$R/run" "$R/var"
mkdir -m 1777 "$R/tmp"
# Relative: what follows is done from outside the new root.
ln -s ../run "$R/var/run"
mount --bind /usr "$R/usr"
mount -o remount,bind,ro "$R/usr"
mount --rbind /proc "$R/proc"
mount --rbind /dev "$R/dev"
mount -t sysfs sysfs "$R/sys"
"#;

fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn quote_path(path: &Path) -> String {
    quote(&path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Capabilities;

    #[test]
    fn a_dropped_set_of_capabilities_keeps_what_is_added() {
        let container = Container {
            security_context: Some(SecurityContext {
                capabilities: Some(Capabilities {
                    drop: Some(vec!["ALL".into()]),
                    add: Some(vec!["NET_RAW".into(), "CAP_NET_ADMIN".into()]),
                }),
                read_only_root_filesystem: Some(true),
                ..Default::default()
            }),
            ..Default::default()
        };
        let got = Credentials::of(&PodSpec::default(), &container);
        assert_eq!(got.capabilities, Some(vec!["net_raw".to_owned(), "net_admin".to_owned()]));
        assert!(got.read_only_root);
        assert_eq!((got.uid, got.gid), (0, 0));
    }

    #[test]
    fn words_with_quotes_survive_the_shell() {
        assert_eq!(quote("it's"), r"'it'\''s'");
    }
}
