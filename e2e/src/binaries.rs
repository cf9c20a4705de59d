//! Our own programs, as Cargo built them beside the running test.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};

use crate::paths;

/// The path of our program `name`, up to date with the sources: the first call in a process runs `cargo build`,
/// so that nobody tests yesterday's speaker. `PATINA_BUILT=1` says that this was just done (the Makefile does).
///
/// # Errors
/// The build failed, or there is no such program.
pub fn path(name: &str) -> Result<PathBuf> {
    static BUILD: OnceLock<Result<(), String>> = OnceLock::new();
    BUILD
        .get_or_init(|| if just_built() { Ok(()) } else { build().map_err(|e| format!("{e:#}")) })
        .clone()
        .map_err(anyhow::Error::msg)?;
    let path = paths::target_dir().join("debug").join(name);
    if !path.is_file() {
        bail!("{} is not there: run `make build`", path.display());
    }
    Ok(path)
}

fn just_built() -> bool {
    std::env::var_os("PATINA_BUILT").is_some_and(|v| v == "1")
}

fn build() -> Result<()> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(paths::workspace()).args(["build", "--quiet", "--workspace", "--bins"]);
    cargo.arg("--target-dir").arg(paths::target_dir());
    let output = cargo.stdin(Stdio::null()).output().context("run cargo")?;
    if !output.status.success() {
        bail!("cargo build of the programs under test failed:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
