//! Run by `devices_that_this_kernel_may_lack`, in the guest or here; by themselves only with `--ignored`.

use patina_e2e::netns::Netns;
use patina_e2e::wait::{self, Seen, secs};

use crate::programs::{Capture, arping, ndisc6};
use crate::wire::{VIP, VIP6, Wire, show};

const BOND_MAC: &str = "02:00:00:00:00:b1";

fn ip(netns: &Netns, args: &str) {
    let args: Vec<&str> = args.split_whitespace().collect();
    netns.ip(&args).unwrap();
}

/// Until `ask` says that `mac` answers, and it alone.
fn answers(what: &str, mac: &str, ask: impl Fn() -> Option<String>) {
    wait::until_blocking(what, secs(20), || {
        let answer = ask();
        Ok(Seen::when(answer.as_deref() == Some(mac), answer))
    })
    .unwrap();
}

#[test]
#[ignore = "needs a kernel with bonding: run by devices_that_this_kernel_may_lack"]
fn a_bond_answers_once_and_its_port_not_at_all() {
    let wire = Wire::new();
    wire.announce_and_wait(&[VIP, VIP6]);
    ip(&wire.node, "link add bond0 type bond mode active-backup miimon 100");
    ip(&wire.node, &format!("link set bond0 address {BOND_MAC}"));
    ip(&wire.node, "link set eth0 down");
    ip(&wire.node, "link set eth0 master bond0");
    ip(&wire.node, "link set bond0 up");
    answers("the bond answers ARP", BOND_MAC, || arping(&wire.peer, VIP));
    answers("the bond answers neighbour solicitations", BOND_MAC, || ndisc6(&wire.peer, VIP6));
    let mut replies = Capture::start(&wire.peer, "arp[6:2] == 2 and not ether broadcast");
    for _ in 0..3 {
        // One question, one answer: the next line after an answer is the answer to the next question.
        assert_eq!(arping(&wire.peer, VIP).as_deref(), Some(BOND_MAC));
        let (_, line) = replies.next();
        assert!(line.starts_with(BOND_MAC), "{line}");
    }
    // The port leaves: it answers for itself again.
    ip(&wire.node, "link set eth0 nomaster");
    ip(&wire.node, "link set eth0 up");
    let mac = show(wire.node_mac());
    answers("the port answers alone", &mac, || arping(&wire.peer, VIP));
}

#[test]
#[ignore = "needs a kernel with 8021q: run by devices_that_this_kernel_may_lack"]
fn a_vlan_answers_on_its_own_segment() {
    let wire = Wire::new();
    wire.announce_and_wait(&[VIP]);
    let vlan_mac = "02:00:00:00:00:64";
    for (netns, host) in [(&wire.node, 11), (&wire.peer, 9)] {
        ip(netns, "link add link eth0 name eth0.100 type vlan id 100");
        ip(netns, &format!("address add 172.25.8.{host}/24 dev eth0.100"));
    }
    ip(&wire.node, &format!("link set eth0.100 address {vlan_mac}"));
    ip(&wire.node, "link set eth0.100 up");
    ip(&wire.peer, "link set eth0.100 up");
    let on_vlan = || {
        let args = ["-r", "-C", "1", "-c", "3", "-w", "2", "-i", "eth0.100", VIP];
        let said = wire.peer.exec("arping", &args).ok()?;
        said.split_whitespace().next().map(str::to_owned)
    };
    answers("the VLAN's device answers there", vlan_mac, on_vlan);
    // And the untagged segment is still the other device's.
    assert_eq!(arping(&wire.peer, VIP), Some(show(wire.node_mac())));
    // When the VLAN's device goes, its segment is silent: the frames that come tagged are nobody's.
    ip(&wire.node, "link delete eth0.100");
    wait::until_blocking("the VLAN is silent", secs(20), || {
        let answer = on_vlan();
        Ok(Seen::when(answer.is_none(), answer))
    })
    .unwrap();
    assert_eq!(arping(&wire.peer, VIP), Some(show(wire.node_mac())));
}

#[test]
#[ignore = "needs a kernel with VRFs: run by devices_that_this_kernel_may_lack"]
fn a_member_of_a_vrf_keeps_its_segment() {
    let wire = Wire::new();
    wire.announce_and_wait(&[VIP, VIP6]);
    ip(&wire.node, "link add red type vrf table 10");
    ip(&wire.node, "link set red up");
    ip(&wire.node, "link set eth0 master red");
    let mac = show(wire.node_mac());
    answers("the member answers ARP", &mac, || arping(&wire.peer, VIP));
    answers("the member answers neighbour solicitations", &mac, || ndisc6(&wire.peer, VIP6));
}

#[test]
#[ignore = "needs a kernel with bonding and 8021q: run by devices_that_this_kernel_may_lack"]
fn a_vlan_on_a_bond_answers_and_the_bond_does_not_answer_for_it() {
    let wire = Wire::new();
    ip(&wire.node, "link add bond0 type bond mode active-backup miimon 100");
    ip(&wire.node, &format!("link set bond0 address {BOND_MAC}"));
    ip(&wire.node, "link set eth0 down");
    ip(&wire.node, "link set eth0 master bond0");
    ip(&wire.node, "link set bond0 up");
    ip(&wire.node, "link add link bond0 name bond0.7 type vlan id 7");
    ip(&wire.node, "link set bond0.7 address 02:00:00:00:00:07");
    ip(&wire.node, "link set bond0.7 up");
    ip(&wire.peer, "link add link eth0 name eth0.7 type vlan id 7");
    ip(&wire.peer, "address add 172.25.9.9/24 dev eth0.7");
    ip(&wire.peer, "link set eth0.7 up");
    wire.announce(&[VIP]);
    answers("the VLAN on the bond", "02:00:00:00:00:07", || {
        let args = ["-r", "-C", "1", "-c", "3", "-w", "2", "-i", "eth0.7", VIP];
        let said = wire.peer.exec("arping", &args).ok()?;
        said.split_whitespace().next().map(str::to_owned)
    });
    answers("the bond itself", BOND_MAC, || arping(&wire.peer, VIP));
}
