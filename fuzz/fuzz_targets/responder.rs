//! Any frame, to a node that has something to do for whatever addresses it names: an answer goes to one station or, to a probe,
//! to all nodes, from our MAC, and only where we answer; a claim is another station's.
#![no_main]

use std::net::IpAddr;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use patina_speaker_core::l2::duty::{Duties, Duty, Mode};
use patina_speaker_core::l2::responder::{Dropped, Responder};
use patina_speaker_core::l2::wire::arp::Arp;
use patina_speaker_core::l2::wire::ndp::Message;

const OURS: [u8; 6] = [2, 0, 0, 0, 0, 9];
const SIBLING: [u8; 6] = [2, 0, 0, 0, 0, 10];

fuzz_target!(|data: &[u8]| {
    let Some((choice, frame)) = data.split_first() else { return };
    handle(*choice, frame);
    handle(*choice, &patina_fuzz::with_checksum(frame));
});

fn handle(choice: u8, frame: &[u8]) {
    let mode = [Mode::Listen, Mode::Probe, Mode::Answer, Mode::Announce][usize::from(choice & 3)];
    // Of the two addresses that a frame names, which we have something to do for.
    let named: Vec<IpAddr> = match (Arp::parse(frame), Message::parse(frame)) {
        (Ok(arp), _) => vec![arp.target_ip.into(), arp.sender_ip.into()],
        (_, Ok(Message::Solicitation(s))) => vec![s.target.into(), s.envelope.source.into()],
        (_, Ok(Message::Advertisement(a))) => vec![a.target.into(), a.envelope.source.into()],
        _ => vec![],
    };
    let duty = Duty { interfaces: Arc::new([3].into()), mode, round: 0, defence: 0 };
    let mine = named.iter().enumerate().filter(|(at, _)| choice >> (2 + at) & 1 == 1);
    let duties: Duties = mine.map(|(_, ip)| (*ip, duty.clone())).collect();
    let mut responder = Responder::default();
    responder.set(Arc::new(duties.clone()));
    responder.set_own([OURS, SIBLING].into());
    match responder.handle(frame, 3, OURS) {
        Ok(reply) => {
            assert!(mode.answers() && duties.contains_key(&reply.ip));
            assert_eq!(&reply.frame[6..12], &OURS);
            let to_all = reply.frame[..6] == [0x33, 0x33, 0, 0, 0, 1] && reply.ip.is_ipv6();
            assert!(to_all || reply.frame[0] & 1 == 0, "{:02x?}", reply.frame);
            // Nobody who hears it takes it for a question.
            assert!(responder.handle(&reply.frame, 3, [2, 0, 0, 0, 0, 1]).is_err());
        }
        Err(Dropped::Claimed(claim)) => {
            assert!(duties.contains_key(&claim.ip) && claim.ifindex == 3);
            assert!(claim.mac != OURS && claim.mac != SIBLING && claim.mac[0] & 1 == 0, "{claim:?}");
        }
        Err(silence) => assert!(!silence.to_string().is_empty() && !silence.reason().is_empty()),
    }
    assert!(responder.handle(frame, 4, OURS).is_err(), "there is nothing to do on another interface");
}
