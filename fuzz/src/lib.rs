//! What several targets hold.

pub mod bgp;

use patina_crds::config::{self, Resources};

/// Builds the configuration and looks at what comes out: pools that do not overlap, or errors with a place and a sentence.
pub fn build(resources: &Resources) {
    match config::build(resources) {
        Ok(loaded) => {
            let _ = loaded.config.to_string();
            let mut ranges: Vec<_> = loaded.config.pools.values().flat_map(|pool| &pool.ranges).collect();
            ranges.sort();
            for pair in ranges.windows(2) {
                assert!(!pair[0].overlaps(pair[1]), "{} and {} overlap", pair[0], pair[1]);
            }
        }
        Err(errors) => {
            assert!(!errors.0.is_empty());
            for error in &errors.0 {
                assert!(!error.field.is_empty() && !error.message.is_empty(), "{error:?}");
            }
        }
    }
}

/// The frame with the right ICMPv6 checksum, where it is long enough to have one: what is behind that check is reached too.
pub fn with_checksum(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    if frame.len() < 58 || frame[12..14] != [0x86, 0xdd] {
        return frame;
    }
    let length = usize::from(u16::from_be_bytes([frame[18], frame[19]]));
    let end = 54 + length;
    if length < 4 || end > frame.len() {
        return frame;
    }
    frame[56..58].fill(0);
    let word = |pair: &[u8]| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
    let mut sum: u64 = 58 + length as u64;
    sum += frame[22..54].chunks(2).chain(frame[54..end].chunks(2)).map(word).sum::<u64>();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    frame[56..58].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    frame
}
