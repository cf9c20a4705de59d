//! `make demo` as a newcomer runs it: it ends well, and its steps are all there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failed expectation is a failed test

use std::process::Command;

#[test]
fn the_demo_tells_every_step_and_leaves_nothing() {
    let output = Command::new(env!("CARGO_BIN_EXE_lab")).arg("demo").output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}\n{errors}");
    let mut rest = told.as_ref();
    for step in STEPS {
        let at = rest.find(step);
        let (_, after) =
            rest.split_at(at.unwrap_or_else(|| panic!("no {step:?} in what follows:\n{rest}\n{errors}")));
        rest = after;
    }
    assert_eq!(told.matches("20 of 20 requests answered").count(), 9, "{told}");
}

/// In this order.
const STEPS: [&str; 17] = [
    "Patina is installed and ready",
    "<pending>",
    "configmap/config created",
    "sample-lb has 172.25.7.100",
    "172.25.7.150",
    "are what they were",
    "$ arping",
    "bytes from 02:25:07:00:00:1",
    "There the pods see the client's own address, 172.25.7.5",
    "is dead.",
    "NotReady",
    "has booted again",
    "nobody answers for 172.25.7.100",
    "ipaddresspool.metallb.io/both-families created",
    "Target link-layer address: 02:25:07:00:00:1",
    "answers for fd00:25:7::100 after",
    "processes, network namespaces and files none is left",
];
