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
    // The peer's kernel forwards no more, while its BFD is as it was.
    b.netns.run(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "0")).unwrap().unwrap();
    let status = us.until(&ours, "went down", |status| status.downs == 1);
    assert_eq!(status.view.diagnostic, Diagnostic::EchoFailed);
    // It offers none then, and control packets decide.
    us.until_up(&ours);
    assert_eq!(us.status(&ours).unwrap().view.state, State::Up);
}
