//! Any bytes as an ARP frame: refused, or read and written back as what was read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use patina_speaker_core::l2::wire::arp::Arp;

fuzz_target!(|frame: &[u8]| {
    match Arp::parse(frame) {
        Ok(arp) => {
            let written = arp.emit();
            assert_eq!(frame.get(..written.len()), Some(&written[..]), "the frame without its padding");
            assert_eq!(
                Arp::parse(&arp.answer([2, 0, 0, 0, 0, 9]).emit()).map(|a| a.sender_ip),
                Ok(arp.target_ip)
            );
        }
        Err(malformed) => assert!(!malformed.to_string().is_empty()),
    }
});
