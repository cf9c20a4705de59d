//! The echo function: through the other one's kernel and back.

use std::time::Duration;

use patina_e2e::wait::{self, Seen, secs};
use patina_speaker_core::bfd::{Diagnostic, Settings, State};

use crate::us::{Net, Us, key, settings};

#[test]
fn echo_packets_go_through_the_peers_kernel_and_decide() {
    let net = Net::new();
    let (a, b) = (net.wires.plug("a", 1).unwrap(), net.wires.plug("b", 2).unwrap());
    let (us, them) = (Us::start(&a), Us::start(&b));
    let (ours, theirs) = (key(b.v4), key(a.v4));
    let echoing = || Settings { echo_mode: true, echo_interval: Duration::from_millis(20), ..settings() };
    us.add(ours.clone(), echoing());
    them.add(theirs.clone(), echoing());
    let second = Some(Duration::from_secs(1));
    for (who, key) in [(&us, &ours), (&them, &theirs)] {
        who.until(key, "echoes", |status| status.view.echo && status.view.transmit_interval == second);
    }
    let labels = format!("{{peer=\"{}\",vrf=\"\"}}", b.v4);
    let count = |what: &str| us.metric(&format!("metallb_bfd_echo_packet_{what}{labels}"));
    let before = count("input");
    wait::until_blocking("a hundred more come back", secs(10), || {
        Ok(Seen::when(count("input") > before + 100, (count("input"), count("output"))))
    })
    .unwrap();
    assert_eq!(us.status(&ours).unwrap().downs, 0);
    // A firewall between: the peer's kernel passes none on, while its BFD is as it was. (Without ip_forward it would say so.)
    b.netns.exec("nft", &["add", "table", "ip", "t"]).unwrap();
    let drop = "{ type filter hook forward priority 0; policy drop; }";
    b.netns.exec("nft", &["add", "chain", "ip", "t", "forward", drop]).unwrap();
    let status = us.until(&ours, "went down", |status| status.downs == 1);
    assert_eq!(status.view.diagnostic, Diagnostic::EchoFailed);
    // None comes back from now on, and control packets decide.
    us.until_up(&ours);
    assert_eq!(us.status(&ours).unwrap().view.state, State::Up);
}
