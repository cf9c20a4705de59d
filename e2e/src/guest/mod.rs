//! A kernel of our own choosing for tests that need what the running one lacks (bonding, VLANs, VRFs, IPVS): qemu boots
//! Debian's cloud kernel with an initramfs that holds one program of ours, what it calls, and the libraries of both.
//!
//! ```text
//!  package linux-image-cloud-amd64 ──> vmlinuz, *.ko ─┐
//!  package busybox-static ───────────> sh, insmod ────┼─> initramfs ──> qemu -kernel -initrd ──> serial console ──> Ended
//!  a test binary, ip, arping … + ldd ─────────────────┘                 (software emulation: no /dev/kvm)
//! ```
//!
//! The guest has no disk and no network but what the program makes inside: namespaces and veth pairs.

mod kernel;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::netns::Netns;
use crate::rundir::RunDir;
use kernel::Kernel;

/// What a guest runs.
#[derive(Debug, Clone)]
pub struct Program<'a> {
    /// The executable; its dynamic libraries go with it.
    pub path: &'a Path,
    /// Its arguments, without spaces or quotes in them.
    pub args: &'a [&'a str],
    /// Other programs that it calls, by name.
    pub calls: &'a [&'a str],
    /// Kernel modules to load first, by name; those they depend on go with them.
    pub modules: &'a [&'a str],
    /// From the boot to the end.
    pub patience: Duration,
}

/// How it ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// Exit code of the program.
    pub code: i32,
    /// All that the console showed.
    pub console: String,
    /// From the start of qemu to the end of the program.
    pub took: Duration,
}

/// Set in the guest.
pub const INSIDE: &str = "PATINA_GUEST";
const EXIT: &str = "patina-guest: exit ";

/// Whether this process runs in a guest.
#[must_use]
pub fn inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Whether the running kernel can make a device of this kind (`bond`, `vlan`, `vrf`, `dummy` ...). Loads its module.
///
/// # Errors
/// No network namespaces: not root, or iproute2 is missing.
pub fn host_has(run: &RunDir, kinds: &[&str]) -> Result<bool> {
    let netns = Netns::create(run, "probe")?;
    let all = kinds.iter().all(|kind| match *kind {
        "vlan" => {
            netns.ip(&["link", "add", "v0", "type", "veth", "peer", "name", "v1"]).is_ok()
                && netns.ip(&["link", "add", "link", "v0", "name", "v0.1", "type", "vlan", "id", "1"]).is_ok()
        }
        "vrf" => netns.ip(&["link", "add", "probe0", "type", "vrf", "table", "10"]).is_ok(),
        kind => netns.ip(&["link", "add", &format!("p-{kind}"), "type", kind]).is_ok(),
    });
    netns.delete()?;
    Ok(all)
}

/// Boots a guest, runs the program in it, and waits for its end.
///
/// # Errors
/// A package is missing (the text names it), the guest did not come up, or the program did not end in time: the text
/// has the end of the console.
pub fn run(run: &RunDir, program: &Program<'_>) -> Result<Ended> {
    let kernel = Kernel::get()?;
    let stage = run.path().join("initramfs");
    stage_files(&stage, &kernel, program).context("put the initramfs together")?;
    let initrd = run.path().join("initramfs.gz");
    let pack = format!(
        "cd '{}' && find . -print0 | cpio --null --create --format=newc --owner=0:0 --quiet | gzip -1 >'{}'",
        stage.display(),
        initrd.display()
    );
    output(Command::new("bash").args(["-o", "pipefail", "-c", &pack]), "cpio")?;
    boot(&kernel, &initrd, program.patience)
}

fn boot(kernel: &Kernel, initrd: &Path, patience: Duration) -> Result<Ended> {
    let began = Instant::now();
    let seconds = patience.as_secs().to_string();
    // `timeout` ends the guest whatever becomes of us; /dev/kvm is not used, guests hung where it is nested.
    let mut command = Command::new("timeout");
    command
        .args(["--kill-after=5", &seconds, "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max"])
        .args(["-smp", "2", "-m", "1024", "-nographic", "-no-reboot", "-nic", "none", "-kernel"])
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(initrd)
        .args(["-append", "console=ttyS0 quiet panic=-1"])
        .stdin(Stdio::null());
    let said = command.output().context("run qemu-system-x86_64 (package qemu-system-x86)")?;
    let console = String::from_utf8_lossy(&said.stdout).replace('\r', "");
    let code = console.lines().find_map(|line| line.split_once(EXIT)?.1.trim().parse().ok());
    match code {
        Some(code) => Ok(Ended { code, console, took: began.elapsed() }),
        None => bail!(
            "the guest did not say how its program ended ({} after {:?}); the console's end:\n{}\n{}",
            said.status,
            began.elapsed(),
            tail(&console),
            String::from_utf8_lossy(&said.stderr)
        ),
    }
}

/// Everything that the guest has, in a directory.
fn stage_files(stage: &Path, kernel: &Kernel, program: &Program<'_>) -> Result<()> {
    for dir in ["bin", "proc", "sys", "dev", "run/netns", "tmp", "root", "etc", "modules", "lib64"] {
        fs::create_dir_all(stage.join(dir))?;
    }
    fs::copy(&kernel.busybox, stage.join("bin/busybox"))?;
    for applet in ["sh", "mount", "insmod", "poweroff", "cat", "sleep", "timeout"] {
        symlink("busybox", stage.join("bin").join(applet))?;
    }
    let mut programs = vec![(program.path.to_path_buf(), PathBuf::from("program"))];
    for name in program.calls {
        let path = which(name)?;
        programs.push((path, Path::new("bin").join(name)));
    }
    let mut libraries = BTreeSet::new();
    for (from, to) in &programs {
        let to = stage.join(to);
        // A link among busybox's, when the real program is wanted.
        let _was_not_there = fs::remove_file(&to);
        // Symbols are most of a debug build, and the guest's disk is its memory.
        output(Command::new("strip").arg("-o").arg(&to).arg(from), "strip (package binutils)")
            .or_else(|_| fs::copy(from, &to).map(|_| String::new()).context("copy"))?;
        libraries.extend(needed(from)?);
    }
    for library in libraries {
        let to = stage.join(library.strip_prefix("/").unwrap_or(&library));
        fs::create_dir_all(to.parent().unwrap_or(stage))?;
        fs::copy(&library, &to).with_context(|| format!("copy {}", library.display()))?;
    }
    let mut load = String::new();
    for (at, module) in kernel.modules(program.modules)?.iter().enumerate() {
        let name = format!("{at:02}-{}", module.file_name().unwrap_or_default().to_string_lossy());
        fs::copy(module, stage.join("modules").join(&name))?;
        load.push_str(&format!("insmod /modules/{name} || echo cannot load {name}\n"));
    }
    let args = program.args.join(" ");
    let init = format!(
        "#!/bin/sh\nexport PATH=/bin HOME=/root TMPDIR=/tmp {INSIDE}=1 RUST_BACKTRACE=1\n\
         mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev\n\
         mount -t tmpfs run /run; mount -t tmpfs tmp /tmp\n{load}\
         ip link set lo up\ncd /tmp\n/program {args}\necho \"{EXIT}$?\"\npoweroff -f\n"
    );
    fs::write(stage.join("init"), init)?;
    fs::set_permissions(stage.join("init"), fs::Permissions::from_mode(0o755))?;
    fs::write(stage.join("etc/protocols"), "icmp 1 ICMP\ntcp 6 TCP\nudp 17 UDP\nipv6-icmp 58 IPv6-ICMP\n")?;
    fs::write(stage.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\ntcpdump:x:0:0::/root:/bin/sh\n")?;
    fs::write(stage.join("etc/group"), "root:x:0:\ntcpdump:x:0:\n")?;
    Ok(())
}

/// The shared libraries that a program is linked with, and the loader.
fn needed(program: &Path) -> Result<Vec<PathBuf>> {
    // A static program has none, and ldd says so with exit code 1.
    let said = Command::new("ldd").arg(program).output().context("run ldd (package libc-bin)")?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let path = |line: &str| {
        let path = line.split_once("=>").map_or(line, |(_, path)| path);
        let path = path.split_whitespace().next().filter(|path| path.starts_with('/'));
        path.map(PathBuf::from)
    };
    Ok(said.lines().filter_map(path).collect())
}

fn which(name: &str) -> Result<PathBuf> {
    let path = output(Command::new("sh").args(["-c", "command -v \"$0\"", name]), name)?;
    fs::canonicalize(path.trim()).with_context(|| format!("find {name}"))
}

fn output(command: &mut Command, what: &str) -> Result<String> {
    let said = command.stdin(Stdio::null()).output().with_context(|| format!("run {what}"))?;
    if !said.status.success() {
        bail!("{what}: {}: {}", said.status, String::from_utf8_lossy(&said.stderr));
    }
    Ok(String::from_utf8_lossy(&said.stdout).into_owned())
}

fn tail(console: &str) -> String {
    let lines: Vec<&str> = console.lines().collect();
    lines.get(lines.len().saturating_sub(40)..).unwrap_or_default().join("\n")
}
