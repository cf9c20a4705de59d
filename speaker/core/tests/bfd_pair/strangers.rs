//! Whatever arrives, in whatever order.

use std::time::Instant;

use patina_speaker_core::bfd::wire::Packet;
use patina_speaker_core::bfd::{Input, Machine, Settings};

use crate::each_seed;
use crate::world::{MS, Random, settings};

#[test]
fn whatever_arrives_nothing_panics_and_no_deadline_stands_still() {
    each_seed("strangers", |seed| {
        let mut random = Random::new(seed + 99);
        let mut now = Instant::now();
        let ours = Settings { echo_mode: seed % 2 == 0, passive: seed % 3 == 0, ..settings() };
        let mut machine = Machine::new(ours, 7, seed, now);
        let mut counted = 0;
        for _ in 0..5000 {
            let length = if random.below(4) == 0 { random.below(40) } else { 24 + random.below(3) };
            let mut bytes: Vec<u8> = (0..length).map(|_| random.below(256) as u8).collect();
            if random.below(8) != 0
                && let Some(head) = bytes.first_chunk_mut::<12>()
            {
                // What passes the first checks, mostly: version, no A and M, a length, and who we are.
                (head[0], head[1], head[3]) = (0x20 | head[0] & 0x1f, head[1] & 0xf2, 24);
                head[8..].copy_from_slice(&[0, 0, 0, if random.below(3) == 0 { 0 } else { 7 }]);
            }
            if let Ok(packet) = Packet::parse(&bytes) {
                let input = Input::Received { packet, ttl: 255, at: now };
                counted += u32::from(machine.handle(now, input).is_ok());
                let outputs = std::iter::from_fn(|| machine.poll_output()).count();
                assert!(outputs <= 6, "{outputs} at once");
            }
            let _never_ours = machine.handle(now, Input::Echo(&bytes));
            now += MS(random.below(40));
            machine.handle_timeout(now);
            while machine.poll_output().is_some() {}
            assert!(machine.poll_timeout().is_none_or(|next| next > now), "a deadline stays due");
        }
        assert!(counted > 1000, "they get that far: {counted}");
    });
}
