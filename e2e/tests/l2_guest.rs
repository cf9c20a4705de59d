//! Bonds, VLANs and VRF members, on a kernel that has them: the running one if it does, else Debian's cloud kernel in a
//! virtual machine (`patina_e2e::guest`). The driver of the speaker is on the wire as in speaker_l2.rs. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failed expectation is a failed test

#[allow(dead_code)] // shared with speaker_l2.rs, which uses all of it
#[path = "speaker_l2/programs.rs"]
mod programs;
#[allow(dead_code)] // likewise
#[path = "speaker_l2/wire.rs"]
mod wire;

#[path = "l2_guest/devices.rs"]
mod devices;

use std::process::Command;

use patina_e2e::guest::{self, Program};
use patina_e2e::rundir::RunDir;
use patina_e2e::wait::secs;

/// As many as `devices` has.
const DEVICE_TESTS: usize = 4;

#[test]
fn devices_that_this_kernel_may_lack() {
    let run = RunDir::create().unwrap();
    let exe = std::env::current_exe().unwrap();
    let args = ["devices::", "--ignored", "--test-threads=1"];
    let said = if guest::host_has(&run, &["bond", "vlan", "vrf"]).unwrap() {
        let output = Command::new(&exe).args(args).output().unwrap();
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    } else {
        let program = Program {
            path: &exe,
            args: &args,
            calls: &["ip", "arping", "ndisc6", "tcpdump", "nft"],
            modules: &["veth", "bonding", "8021q", "vrf", "bridge", "ipv6"],
            patience: secs(240),
        };
        let ended = guest::run(&run, &program).unwrap();
        println!("the guest ran for {:?}", ended.took);
        ended.console
    };
    assert!(said.contains(&format!("test result: ok. {DEVICE_TESTS} passed; 0 failed")), "{said}");
}
