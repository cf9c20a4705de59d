//! A stream of any bytes, of pieces that are any bytes or the bodies of messages: however it is cut, the same is read.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use patina_fuzz::bgp;
use patina_speaker_core::bgp::codec::{Negotiated, Reader};
use patina_speaker_core::bgp::message::{Message, Notification};

#[derive(Arbitrary, Debug)]
struct Stream {
    negotiated: u8,
    pieces: Vec<(Option<u8>, Vec<u8>)>,
    cuts: Vec<u16>,
}

fn read(
    pieces: impl Iterator<Item = Vec<u8>>,
    negotiated: &Negotiated,
) -> (Vec<Message>, Option<Notification>) {
    let mut reader = Reader::default();
    let mut messages = Vec::new();
    for piece in pieces {
        reader.feed(&piece);
        loop {
            match reader.next(negotiated) {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(error) => return (messages, Some(error)),
            }
        }
    }
    (messages, None)
}

fuzz_target!(|stream: Stream| {
    let negotiated = bgp::negotiated(stream.negotiated);
    let mut bytes = Vec::new();
    for (kind, piece) in stream.pieces {
        match kind.and_then(|kind| bgp::message(kind % 6, &piece)) {
            Some(message) => bytes.extend(message),
            None => bytes.extend(piece),
        }
    }
    let whole = read(std::iter::once(bytes.clone()), &negotiated);
    let mut rest = bytes.as_slice();
    let mut cuts = stream.cuts.iter().cycle();
    let pieces = std::iter::from_fn(|| {
        let cut = usize::from(*cuts.next().unwrap_or(&0)) % 64 + 1;
        let (piece, after) = rest.split_at(cut.min(rest.len()));
        rest = after;
        (!piece.is_empty()).then(|| piece.to_vec())
    });
    assert_eq!(read(pieces, &negotiated), whole);
});
