//! The guest's kernel and its shell: two Debian packages, unpacked into the cache, not installed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::output;
use crate::paths;

/// The package that always depends on the newest kernel of Debian for virtual machines.
const META: &str = "linux-image-cloud-amd64";
const SHELL: &str = "busybox-static";

/// Unpacked files.
#[derive(Debug)]
pub(super) struct Kernel {
    pub(super) image: PathBuf,
    pub(super) busybox: PathBuf,
    modules: PathBuf,
}

impl Kernel {
    /// From the cache, or from the package mirror that this machine uses.
    pub(super) fn get() -> Result<Self> {
        let cached = paths::cache().join("guest-kernel");
        if !cached.join("complete").is_file() {
            fs::create_dir_all(&cached)?;
            // Two runs that need it: the second waits here and finds it.
            let lock = File::create(cached.join(".lock"))?;
            lock.lock().with_context(|| format!("lock {}", cached.display()))?;
            if !cached.join("complete").is_file() {
                fetch(&cached).with_context(|| {
                    format!("the guest kernel comes from the packages {META} and {SHELL} of Debian; apt-get must be able to download them")
                })?;
            }
        }
        let image = files(&cached.join("boot"))?.into_iter().find(|path| name(path).starts_with("vmlinuz-"));
        let modules = files(&cached.join("lib/modules"))?.into_iter().next();
        Ok(Self {
            image: image.context("no vmlinuz in the kernel package")?,
            busybox: cached.join("bin/busybox"),
            modules: modules.context("no modules in the kernel package")?.join("kernel"),
        })
    }

    /// The files of these modules and of all they depend on, in the order to load them.
    pub(super) fn modules(&self, wanted: &[&str]) -> Result<Vec<PathBuf>> {
        let mut all = BTreeMap::new();
        find(&self.modules, &mut all)?;
        let mut order = Vec::new();
        for module in wanted {
            add(module, &all, &mut order)?;
        }
        Ok(order)
    }
}

fn add(module: &str, all: &BTreeMap<String, PathBuf>, order: &mut Vec<PathBuf>) -> Result<()> {
    // Built in, perhaps; loading what needs it will tell.
    let Some(path) = all.get(&module.replace('-', "_")) else { return Ok(()) };
    if order.contains(path) {
        return Ok(());
    }
    let bytes = fs::read(path)?;
    for needed in depends(&bytes) {
        add(&needed, all, order)?;
    }
    order.push(path.clone());
    Ok(())
}

/// The `depends=` entry of a module's .modinfo section (include/linux/module.h).
fn depends(module: &[u8]) -> Vec<String> {
    let key = b"\0depends=";
    let Some(at) = module.windows(key.len()).position(|window| window == key) else { return Vec::new() };
    let value = module.get(at + key.len()..).unwrap_or_default().split(|byte| *byte == 0).next();
    let value = String::from_utf8_lossy(value.unwrap_or_default()).into_owned();
    value.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn find(dir: &Path, all: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for path in files(dir)? {
        if path.is_dir() {
            find(&path, all)?;
        } else if let Some(module) = name(&path).strip_suffix(".ko") {
            all.insert(module.replace('-', "_"), path.clone());
        }
    }
    Ok(())
}

fn fetch(into: &Path) -> Result<()> {
    eprintln!("guest: downloading the packages {META} and {SHELL} (once; kept in {})", into.display());
    let depends = output(Command::new("apt-cache").args(["depends", META]), "apt-cache")?;
    let image = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
    let Some(image) = image else { bail!("the package {META} is not known to apt: {depends:?}") };
    output(
        Command::new("apt-get").args(["download", "-q", image, SHELL]).current_dir(into),
        "apt-get download",
    )?;
    for package in files(into)?.iter().filter(|path| name(path).ends_with(".deb")) {
        output(Command::new("dpkg-deb").arg("-x").arg(package).arg(into), "dpkg-deb")?;
        fs::remove_file(package)?;
    }
    fs::write(into.join("complete"), image)?;
    Ok(())
}

fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))?;
    let mut paths: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    paths.sort();
    Ok(paths)
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
