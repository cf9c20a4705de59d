//! Where things are on this machine: the workspace, the cache of tools, the place for runs.

use std::env;
use std::path::{Path, PathBuf};

/// The root of the workspace that this crate was compiled in.
pub fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// The generated CustomResourceDefinitions.
pub fn crds_yaml() -> PathBuf {
    workspace().join("crds/yaml")
}

/// The Go modules that pin the lab's tools.
pub fn tool_modules() -> PathBuf {
    workspace().join("e2e/tools")
}

/// Where built tools are kept between runs and clones: `PATINA_CACHE`, else `~/.cache/patina`.
pub fn cache() -> PathBuf {
    match env::var_os("PATINA_CACHE").filter(|v| !v.is_empty()) {
        Some(dir) => PathBuf::from(dir),
        None => home().join(".cache/patina"),
    }
}

/// Where runs live, shared by all clones on this machine so that any of them can clean up after any other:
/// `PATINA_RUN_DIR`, else `/run/patina-lab` for root, else below the user's runtime or temporary directory.
pub fn run_root() -> PathBuf {
    if let Some(dir) = env::var_os("PATINA_RUN_DIR").filter(|v| !v.is_empty()) {
        return PathBuf::from(dir);
    }
    let uid = nix::unistd::getuid();
    if uid.is_root() {
        return PathBuf::from("/run/patina-lab");
    }
    match env::var_os("XDG_RUNTIME_DIR").filter(|v| !v.is_empty()) {
        Some(dir) => PathBuf::from(dir).join("patina-lab"),
        None => env::temp_dir().join(format!("patina-lab-{uid}")),
    }
}

/// Where the logs of a failed run are kept after its run directory is gone.
pub fn kept_logs() -> PathBuf {
    target_dir().join("lab-logs")
}

/// Cargo's target directory: `CARGO_TARGET_DIR`, else the one the running executable was built into, else
/// `target` in the workspace.
pub fn target_dir() -> PathBuf {
    if let Some(dir) = env::var_os("CARGO_TARGET_DIR").filter(|v| !v.is_empty()) {
        let dir = PathBuf::from(dir);
        return if dir.is_absolute() { dir } else { workspace().join(dir) };
    }
    // target/debug/lab, target/debug/deps/some_test-0123456789abcdef
    let from_exe = env::current_exe().ok().and_then(|exe| {
        exe.ancestors().find(|dir| dir.join("CACHEDIR.TAG").is_file()).map(Path::to_path_buf)
    });
    from_exe.unwrap_or_else(|| workspace().join("target"))
}

fn home() -> PathBuf {
    env::var_os("HOME").filter(|v| !v.is_empty()).map_or_else(|| PathBuf::from("/root"), PathBuf::from)
}
