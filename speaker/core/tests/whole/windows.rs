//! What the simulation allows, and for how long: the figures that docs/guide/layer2.md states.

use std::time::Duration;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// From a death, a link that fails, a process that stops or a partition until every other speaker has decided again.
pub(crate) const DETECTION: Duration = ms(500);
/// After that: nobody announces an address although a candidate lives. The new leader announces at once.
pub(crate) const DARK_AFTER_DEATH: Duration = ms(DETECTION.as_millis() as u64 + 100);
/// With failback that is not immediate, a speaker asks three times (2 probes, 100 ms apart) before it takes what it may have missed.
pub(crate) const CAREFUL: Duration = ms(600);
/// From the first speaker on a segment that starts until it announces: it joins, reads the API, and (with failback that is not
/// immediate) asks three times whether somebody has the address.
pub(crate) const START: Duration = ms(3200);
/// How late the news of the API server reach a speaker, compared with another one.
pub(crate) const LAG: Duration = ms(2000);
/// A new address: news, probing (2 probes, 100 ms apart; three rounds where one of ours may hold it), and the first announcement.
pub(crate) const NEW_ADDRESS: Duration = ms(LAG.as_millis() as u64 + 800);
/// Two announce an address: from the announcement of the better one until the other has heard it. Frames are lost (5 %), and
/// the announcement is repeated after 100, 300, 1000 ms; with none lost it is the delay of a frame.
pub(crate) const HEARING: Duration = ms(1100);
/// After a partition has healed: until both know each other again ([`DETECTION`]), the worse one has asked and yielded.
pub(crate) const HEALED: Duration = ms(DETECTION.as_millis() as u64 + HEARING.as_millis() as u64);
/// Two answer after a cable that passed nothing, and had its carrier, has been mended, with no frame lost.
pub(crate) const MENDED: Duration = ms(300);
/// A node that had no carrier does not answer before it and the one who answers know each other again; then it hands over: the
/// other may have to ask once (100 ms) before it hears that it is replaced.
pub(crate) const HANDED_OVER: Duration = ms(150);
/// A speaker alone on its wire, with membership as before: until it says so, and the others have decided.
pub(crate) const ISOLATED: Duration = ms(1500);
/// Nothing happens any more: how long until everything stands still. The longest handover and a question to a holder
/// (`Settings::{longest_handover, waiting_retry}`) are within.
pub(crate) const SETTLE: Duration = ms(9000);
/// How often an address may be taken per thing that happens: by a successor, and by one with older news.
pub(crate) const MOVES: usize = 2;
