//! Two or three speakers that write to each other, and somebody between them.

#![allow(clippy::disallowed_methods)] // a first instant to count from; the clock is never read again

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const OLD: &[u8] = b"YWJjZGVmZ2hpamtsbW5vcA";
const NEW: &[u8] = b"bmV3bmV3bmV3bmV3bmV3bmV3";
const WRONG: &[u8] = b"d3Jvbmd3cm9uZ3dyb25nd3Jvbmc";

fn place(number: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], number))
}

fn keyring(newest: &[u8], previous: Option<&[u8]>) -> Keyring {
    Keyring::new(newest, previous).unwrap()
}

fn envelope(name: u8, secret: &[u8]) -> Envelope {
    Envelope::new(keyring(secret, None), [name; 16], [name; 32])
}

fn message(opened: Result<Opened, Refused>) -> Vec<u8> {
    match opened.unwrap().content {
        Content::Message(message) => message,
        other => panic!("{other:?} in place of a message"),
    }
}

/// Speakers by place, and the wire between them.
struct World {
    now: Instant,
    speakers: BTreeMap<SocketAddr, Envelope>,
    refused: Vec<Refused>,
    got: Vec<(SocketAddr, Vec<u8>)>,
}

impl World {
    fn of(names: &[u8], secret: &[u8]) -> Self {
        let speakers = names.iter().map(|name| (place((*name).into()), envelope(*name, secret))).collect();
        Self { now: Instant::now(), speakers, refused: Vec::new(), got: Vec::new() }
    }

    fn at(&mut self, name: u8) -> &mut Envelope {
        self.speakers.get_mut(&place(name.into())).unwrap()
    }

    fn seal(&mut self, from: u8, to: u8, message: &[u8]) -> Vec<u8> {
        let now = self.now;
        self.at(from).seal(now, place(to.into()), message)
    }

    fn open(&mut self, to: u8, from: u8, datagram: &[u8]) -> Result<Opened, Refused> {
        let now = self.now;
        self.at(to).open(now, place(from.into()), datagram)
    }

    /// Sends, and carries all that follows to and fro.
    fn send(&mut self, from: u8, to: u8, message: &[u8]) {
        let datagram = self.seal(from, to, message);
        self.carry(from, to, &datagram);
    }

    fn carry(&mut self, from: u8, to: u8, datagram: &[u8]) {
        let mut wire = vec![(from, to, datagram.to_vec())];
        while let Some((from, to, datagram)) = wire.pop() {
            match self.open(to, from, &datagram) {
                Ok(opened) => {
                    if let Content::Message(message) = opened.content {
                        self.got.push((place(to.into()), message));
                    }
                    wire.extend(opened.replies.into_iter().map(|reply| (to, from, reply)));
                }
                Err(refused) => self.refused.push(refused),
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }
}

/// Two that know each other.
fn acquainted() -> World {
    let mut world = World::of(&[1, 2], OLD);
    world.send(1, 2, b"hello");
    world.send(2, 1, b"hello");
    assert_eq!(world.got, [(place(2), b"hello".to_vec()), (place(1), b"hello".to_vec())]);
    assert_eq!(world.refused, []);
    world.got.clear();
    world
}

#[test]
fn the_first_message_arrives_after_a_greeting_and_the_next_at_once() {
    let mut world = acquainted();
    let datagram = world.seal(1, 2, b"again");
    assert_eq!(datagram.len(), b"again".len() + OVERHEAD);
    assert!(!datagram.windows(5).any(|bytes| bytes == b"again"));
    assert_eq!(message(world.open(2, 1, &datagram)), b"again");
}

#[test]
fn a_datagram_of_any_other_length_is_refused() {
    let mut world = acquainted();
    let datagram = world.seal(1, 2, b"message");
    for length in 0..datagram.len() {
        let refused = world.open(2, 1, &datagram[..length]).unwrap_err();
        let expected = if length < OVERHEAD { Refused::Short } else { Refused::BadTag };
        assert_eq!(refused, expected, "{length} bytes");
    }
    let longer = [&datagram[..], &[0]].concat();
    assert_eq!(world.open(2, 1, &longer), Err(Refused::BadTag));
    assert_eq!(message(world.open(2, 1, &datagram)), b"message");
}

#[test]
fn a_datagram_with_any_bit_flipped_is_refused() {
    let mut world = acquainted();
    let datagram = world.seal(1, 2, b"message");
    for bit in 0..datagram.len() * 8 {
        let mut changed = datagram.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let refused = world.open(2, 1, &changed).unwrap_err();
        let expected: &[Refused] = match bit / 8 {
            0 => &[Refused::Version],
            1..5 => &[Refused::UnknownKey],
            // A lower counter may have come already.
            29..37 => &[Refused::BadTag, Refused::Replayed],
            _ => &[Refused::BadTag],
        };
        assert!(expected.contains(&refused), "bit {bit}: {refused}");
    }
    assert_eq!(message(world.open(2, 1, &datagram)), b"message");
}

#[test]
fn a_message_counts_once() {
    let mut world = acquainted();
    let datagram = world.seal(1, 2, b"message");
    assert_eq!(message(world.open(2, 1, &datagram)), b"message");
    let work = world.at(2).work();
    assert_eq!(world.open(2, 1, &datagram), Err(Refused::Replayed));
    // Also from elsewhere.
    assert_eq!(world.open(2, 9, &datagram), Err(Refused::Replayed));
    assert_eq!(world.at(2).work(), work, "nothing was decrypted for it");
}

#[test]
fn messages_may_overtake_each_other_within_the_window() {
    let mut world = acquainted();
    let kept: Vec<_> = (0..1100_u16).map(|number| world.seal(1, 2, &number.to_be_bytes())).collect();
    assert_eq!(message(world.open(2, 1, &kept[1099])), 1099_u16.to_be_bytes());
    for (number, datagram) in kept.iter().enumerate().rev().skip(1) {
        let opened = world.open(2, 1, datagram);
        if number + 1024 > 1099 {
            assert_eq!(message(opened), u16::try_from(number).unwrap().to_be_bytes());
        } else {
            assert_eq!(opened, Err(Refused::Replayed), "{number} is too far behind");
        }
    }
}

#[test]
fn a_recording_for_an_earlier_start_is_not_believed() {
    let mut world = acquainted();
    let recorded: Vec<_> = (0..10_u8).map(|number| world.seal(1, 2, &[number])).collect();
    *world.at(2) = Envelope::new(keyring(OLD, None), [22; 16], [2; 32]);
    for datagram in &recorded {
        let opened = world.open(2, 1, datagram).unwrap();
        assert_eq!(opened.content, Content::OtherStart);
    }
    assert_eq!(world.at(2).peers.len(), 0);
    // The real one learns of the new start by the greeting that one of them caused, and goes on.
    world.pass(Duration::from_secs(1));
    world.carry(1, 2, &recorded[0]);
    world.send(1, 2, b"now");
    assert_eq!(world.got, [(place(2), b"now".to_vec())]);
    for datagram in &recorded {
        assert_eq!(world.open(2, 1, datagram).unwrap().content, Content::OtherStart);
    }
}

#[test]
fn a_recording_of_an_earlier_start_of_the_sender_counts_no_second_time() {
    let mut world = acquainted();
    let recorded: Vec<_> = (0..10_u8).map(|number| world.seal(1, 2, &[number])).collect();
    recorded.iter().for_each(|datagram| world.carry(1, 2, datagram));
    *world.at(1) = Envelope::new(keyring(OLD, None), [11; 16], [1; 32]);
    world.got.clear();
    world.send(1, 2, b"a new start");
    assert_eq!(world.got, [(place(2), b"a new start".to_vec())]);
    for datagram in &recorded {
        assert_eq!(world.open(2, 1, datagram), Err(Refused::Replayed));
    }
    // And the other way round: the second knows where to write to.
    world.send(2, 1, b"answer");
    assert_eq!(world.got.last(), Some(&(place(1), b"answer".to_vec())));
}

#[test]
fn what_was_sent_to_another_speaker_is_not_for_us() {
    let mut world = World::of(&[1, 2, 3], OLD);
    for (from, to) in [(1, 2), (2, 1), (1, 3), (3, 1)] {
        world.send(from, to, b"hello");
    }
    let datagram = world.seal(1, 2, b"for two");
    assert_eq!(world.open(3, 1, &datagram).unwrap().content, Content::OtherStart);
    assert_eq!(message(world.open(2, 1, &datagram)), b"for two");
}

#[test]
fn our_own_datagram_that_comes_back_is_refused() {
    let mut world = acquainted();
    let datagram = world.seal(1, 2, b"message");
    assert_eq!(world.open(1, 2, &datagram), Err(Refused::Own));
    let greeting = world.seal(1, 7, b"to a stranger");
    assert_eq!(world.open(1, 7, &greeting), Err(Refused::Own));
}

#[test]
fn a_wrong_key_opens_nothing_and_costs_nothing() {
    let mut world = acquainted();
    let mut stranger = envelope(3, WRONG);
    for number in 0..1000_u16 {
        let datagram = stranger.seal(world.now, place(2), &number.to_be_bytes());
        assert_eq!(world.open(2, 3, &datagram), Err(Refused::UnknownKey));
    }
    assert_eq!(world.at(2).work().attempts, 2, "the two datagrams of the acquaintance");
}

#[test]
fn a_stranger_who_knows_the_key_id_costs_one_attempt_each_and_leaves_no_trace() {
    let mut world = acquainted();
    let before = world.at(2).work();
    let example = world.seal(1, 2, b"message");
    for number in 0..10_000_u32 {
        let mut forged = example.clone();
        forged[5..9].copy_from_slice(&number.to_be_bytes());
        assert_eq!(world.open(2, 3, &forged), Err(Refused::BadTag));
    }
    let after = world.at(2).work();
    assert_eq!(after.attempts - before.attempts, 10_000);
    assert_eq!(after.derived - before.derived, 10_000);
    assert_eq!((world.at(2).peers.len(), world.at(2).greeted.len()), (1, 1));
    assert_eq!(message(world.open(2, 1, &example)), b"message");
}

/// Twelve: for the membership, and on further segments. One more makes the oldest a stranger, who is greeted again.
#[test]
fn a_speaker_is_known_at_each_of_the_addresses_that_it_may_tell() {
    for (addresses, waits) in [(12_u16, 0), (13, 1)] {
        let mut world = acquainted();
        let now = world.now;
        // The first is the one at which they met.
        for address in (2..).take(addresses.into()) {
            let datagram = world.seal(2, 1, b"from there");
            message(world.at(1).open(now, place(address), &datagram));
        }
        assert_eq!(world.at(1).waiting.places(), 0, "nobody was asked yet");
        for address in (2..).take(addresses.into()) {
            world.at(1).seal(now, place(address), b"to there");
        }
        assert_eq!(world.at(1).waiting.places(), waits, "{addresses} addresses");
    }
}

#[test]
fn a_repeated_recording_is_answered_ten_times_a_second() {
    let mut world = acquainted();
    let recorded = world.seal(1, 2, b"message");
    *world.at(2) = Envelope::new(keyring(OLD, None), [22; 16], [2; 32]);
    let mut greetings = 0;
    for _ in 0..1000 {
        world.pass(Duration::from_millis(1));
        let replies = world.open(2, 1, &recorded).unwrap().replies;
        greetings += replies.len();
        // No amplifier: what goes out is hardly longer than what came in.
        assert!(replies.iter().all(|reply| reply.len() <= recorded.len() + 8));
    }
    assert_eq!(greetings, 10);
}

#[test]
fn recordings_from_a_thousand_places_fill_no_table_and_keep_no_newcomer_out() {
    let mut world = acquainted();
    let recorded = world.seal(1, 2, b"message");
    *world.at(2) = Envelope::new(keyring(OLD, None), [22; 16], [2; 32]);
    let now = world.now;
    for port in 1000..6000 {
        let opened = world.at(2).open(now, place(port), &recorded).unwrap();
        assert_eq!(opened.content, Content::OtherStart);
    }
    assert!(world.at(2).greeted.len() <= 1024);
    assert_eq!(world.at(2).peers.len(), 0);
    *world.at(1) = envelope(11, OLD);
    world.send(1, 2, b"new");
    assert_eq!(world.got, [(place(2), b"new".to_vec())]);
}

#[test]
fn a_full_table_of_starts_is_emptied_by_a_new_epoch_and_nothing_old_opens_afterwards() {
    let mut world = acquainted();
    let recorded = world.seal(1, 2, b"recorded");
    assert_eq!(message(world.open(2, 1, &recorded)), b"recorded");
    world.pass(Duration::from_secs(120));
    let first = world.at(2).epoch;
    let known = wire::to(&first);
    let (now, mut starts) = (world.now, 0_u32);
    while world.at(2).epoch == first {
        starts += 1;
        let mut other = envelope(5, OLD);
        other.epoch[..4].copy_from_slice(&starts.to_be_bytes());
        other.keys.begin(other.epoch);
        let key = other.keys.newest().clone();
        let datagram = other.send(place(2), &key, known, Inner::Message(b"x"));
        assert!(starts < 20_000 && world.at(2).open(now, place(5), &datagram).is_ok());
    }
    assert_eq!(usize::try_from(starts).unwrap(), peers::MOST);
    assert!(world.at(2).peers.len() <= peers::MOST / 2);
    assert_eq!(world.open(2, 1, &recorded).unwrap().content, Content::OtherStart);
    // The one who was there before learns the new epoch by itself.
    world.pass(Duration::from_secs(1));
    world.send(1, 2, b"lost, but a greeting comes back");
    world.send(1, 2, b"after");
    assert_eq!(world.got.last(), Some(&(place(2), b"after".to_vec())));
}

#[test]
fn a_speaker_that_answers_from_another_address_is_found_all_the_same() {
    let mut world = World::of(&[1, 2], OLD);
    let greeting = world.seal(1, 2, b"to the address that is known");
    // It has two addresses and answers from the other one, place 9.
    let reply = world.open(2, 1, &greeting).unwrap().replies.remove(0);
    let opened = world.open(1, 9, &reply).unwrap();
    assert_eq!(message(world.open(2, 1, &opened.replies[0])), b"to the address that is known");
    let next = world.seal(1, 2, b"next");
    assert_eq!(message(world.open(2, 1, &next)), b"next");
}

#[test]
fn messages_that_wait_are_few_and_fresh() {
    let mut world = World::of(&[1, 2], OLD);
    world.seal(1, 2, b"too old");
    world.pass(Duration::from_secs(1));
    for number in 0..20_u8 {
        world.seal(1, 2, &[number]);
    }
    world.send(1, 2, b"last");
    let got: Vec<_> = world.got.iter().map(|(_, message)| message.clone()).collect();
    assert_eq!(got.len(), 8);
    assert!(got.contains(&b"last".to_vec()) && !got.contains(&b"too old".to_vec()), "{got:?}");
}

#[test]
fn a_short_secret_is_refused_with_a_sentence() {
    let error = Keyring::new(b"  0123456789abcde\n", None).unwrap_err();
    assert_eq!(error.to_string(), "the secret is 15 bytes long; at least 16 are needed");
    assert!(Keyring::new(b"0123456789abcdef", Some(b"short")).is_err());
}

#[test]
fn a_secret_is_the_same_with_and_without_white_space_and_is_never_shown() {
    let (a, b) = (keyring(OLD, None), keyring(&[b" \n", OLD, b"\n"].concat(), Some(OLD)));
    assert_eq!(a, b);
    assert_eq!(a.ids().count(), 1);
    let shown = format!("{a:?} {:?}", envelope(1, OLD));
    assert!(!shown.contains("YWJj") && shown.contains(&a.ids().next().unwrap().to_string()), "{shown}");
}

/// Three speakers change from one secret to the other, each when its kubelet does so; all talk all the time.
fn rotation(order: &[u8; 3]) {
    let mut world = World::of(&[1, 2, 3], OLD);
    let pairs = [(1, 2), (2, 1), (1, 3), (3, 1), (2, 3), (3, 2)];
    let mut sent = 0_u32;
    let mut talk = |world: &mut World, rounds: u32| {
        for _ in 0..rounds {
            // All write before anybody reads: what is on its way crosses.
            let wire: Vec<_> = pairs
                .iter()
                .map(|(from, to)| (*from, *to, world.seal(*from, *to, &sent.to_be_bytes())))
                .collect();
            for (from, to, datagram) in wire {
                world.carry(from, to, &datagram);
                sent += 1;
            }
            world.pass(Duration::from_millis(500));
        }
        assert_eq!((world.refused.as_slice(), world.got.len()), (&[][..], sent as usize), "order {order:?}");
    };
    talk(&mut world, 3);
    for name in order {
        let now = world.now;
        assert!(world.at(*name).rotate(now, keyring(NEW, None)));
        assert!(!world.at(*name).rotate(now, keyring(NEW, None)), "no change");
        talk(&mut world, 80);
    }
    talk(&mut world, 80);
    let new = keyring(NEW, None).ids().next().unwrap();
    for name in order {
        assert_eq!(world.at(*name).key_ids().collect::<Vec<_>>(), [new], "the old key is gone");
    }
}

#[test]
fn a_rotation_loses_no_message_in_whatever_order_it_reaches_the_speakers() {
    for order in [[1, 2, 3], [1, 3, 2], [2, 1, 3], [2, 3, 1], [3, 1, 2], [3, 2, 1]] {
        rotation(&order);
    }
}

#[test]
fn a_rotation_taken_back_halfway_loses_no_message() {
    let mut world = acquainted();
    let now = world.now;
    for secret in [NEW, OLD, NEW] {
        world.at(1).rotate(now, keyring(secret, None));
        for _ in 0..4 {
            world.send(1, 2, b"a");
            world.send(2, 1, b"b");
        }
    }
    assert_eq!((world.refused.as_slice(), world.got.len()), (&[][..], 24));
}

#[test]
fn a_speaker_that_starts_during_a_rotation_is_met_under_either_key() {
    // The newcomer has both; the others have the old one.
    let mut world = acquainted();
    let newcomer = Envelope::new(keyring(NEW, Some(OLD)), [3; 16], [3; 32]);
    world.speakers.insert(place(3), newcomer);
    world.send(3, 1, b"first try, under the new key");
    assert_eq!(world.refused, [Refused::UnknownKey]);
    world.send(3, 1, b"second try, under the old one");
    assert_eq!(world.got.len(), 2);
    world.send(1, 3, b"answer");
    assert_eq!(world.got.len(), 3);
}

#[test]
fn a_key_that_is_no_longer_configured_opens_for_ten_minutes_at_most() {
    let mut world = acquainted();
    let now = world.now;
    world.at(1).rotate(now, keyring(NEW, None));
    for minute in 0..12 {
        let datagram = world.seal(2, 1, b"under the old key");
        let opened = world.open(1, 2, &datagram);
        if minute < 10 {
            assert_eq!(message(opened), b"under the old key", "minute {minute}");
        } else {
            assert_eq!(opened, Err(Refused::UnknownKey), "minute {minute}");
        }
        world.pass(Duration::from_secs(60));
    }
}

proptest! {
    /// Whatever bytes come, nothing of them is believed, and the work is one attempt.
    #[test]
    fn bytes_of_a_stranger_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), known in any::<bool>()) {
        let mut receiver = envelope(2, OLD);
        let mut bytes = bytes;
        if known && bytes.len() > 5 {
            bytes[0] = 1;
            bytes[1..5].copy_from_slice(&receiver.newest_key().0);
        }
        prop_assert!(receiver.open(Instant::now(), place(1), &bytes).is_err());
        prop_assert!(receiver.work().attempts <= 1);
        prop_assert_eq!(receiver.peers.len(), 0);
    }

    /// Loss, repetition and disorder: each message counts at most once, and what was not lost counts, if it was not held
    /// back for a thousand others.
    #[test]
    fn a_bad_wire_doubles_nothing(order in prop::collection::vec(0_usize..50, 1..200)) {
        let mut world = acquainted();
        let kept: Vec<_> = (0..50_u8).map(|number| world.seal(1, 2, &[number])).collect();
        let mut seen = std::collections::BTreeSet::new();
        for number in order {
            match world.open(2, 1, &kept[number]) {
                Ok(opened) => {
                    let expected = vec![u8::try_from(number).unwrap()];
                    prop_assert_eq!(opened.content, Content::Message(expected));
                    prop_assert!(seen.insert(number));
                }
                Err(refused) => {
                    prop_assert_eq!(refused, Refused::Replayed);
                    prop_assert!(seen.contains(&number));
                }
            }
        }
    }
}
