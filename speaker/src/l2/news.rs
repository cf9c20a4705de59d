//! What the driver heard, told to whoever decides: each claim once in a while, however often it is on the wire.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use patina_speaker_core::l2::duty::Claim;
use tokio::sync::mpsc;

use super::Heard;

/// The same claim within this time is no news. An announcement comes as a request and as a reply, and a storm as thousands.
const REPEAT: Duration = Duration::from_millis(50);
/// Claims that are remembered. A stranger can make up as many as it likes.
const MOST: usize = 4096;

#[derive(Debug)]
pub(super) struct News {
    listener: mpsc::Sender<Heard>,
    told: BTreeMap<Claim, Instant>,
}

impl News {
    pub(super) fn new(listener: mpsc::Sender<Heard>) -> Self {
        Self { listener, told: BTreeMap::new() }
    }

    /// Tells of a claim. False: there are too many to be told; those that matter repeat themselves on the wire.
    pub(super) fn claim(&mut self, now: Instant, claim: Claim) -> bool {
        let told = self.told.get(&claim).copied();
        if told.is_some_and(|told| now.saturating_duration_since(told) < REPEAT) {
            return true;
        }
        if told.is_none() && self.told.len() >= MOST {
            self.told.retain(|_, told| now.saturating_duration_since(*told) < REPEAT);
            if self.told.len() >= MOST {
                return false;
            }
        }
        let heard = self.listener.try_send(Heard::Claim(claim)).is_ok();
        if heard {
            self.told.insert(claim, now);
        }
        heard
    }

    /// There are other duties, to which what was told may mean something else.
    pub(super) fn forget(&mut self) {
        self.told.clear();
    }
}

#[cfg(test)]
mod tests {
    use patina_speaker_core::l2::duty::ClaimKind;

    use super::*;

    fn claim(n: u32) -> Claim {
        let kind = ClaimKind::Announcement;
        Claim { ip: [192, 0, 2, 1].into(), ifindex: n, mac: [2, 0, 0, 0, 0, 1], kind }
    }

    #[test]
    fn a_storm_is_told_once_in_a_while() {
        let (sender, mut heard) = mpsc::channel(16);
        let (mut news, now) = (News::new(sender), Instant::now());
        for _ in 0..1000 {
            assert!(news.claim(now, claim(1)));
        }
        assert_eq!(heard.try_recv(), Ok(Heard::Claim(claim(1))));
        assert!(heard.try_recv().is_err());
        assert!(news.claim(now + REPEAT, claim(1)));
        assert!(heard.try_recv().is_ok());
        news.forget();
        assert!(news.claim(now + REPEAT, claim(1)));
        assert!(heard.try_recv().is_ok());
    }

    #[test]
    fn what_is_not_told_counts_as_untold_and_memory_is_bounded() {
        let (sender, mut heard) = mpsc::channel(1);
        let (mut news, now) = (News::new(sender), Instant::now());
        assert!(news.claim(now, claim(1)));
        assert!(!news.claim(now, claim(2)), "nobody listens for the moment");
        heard.try_recv().unwrap();
        assert!(news.claim(now, claim(2)));
        for n in 0..2 * MOST as u32 {
            let _full = heard.try_recv();
            news.claim(now, claim(n));
        }
        assert_eq!(news.told.len(), MOST);
        let _full = heard.try_recv();
        assert!(news.claim(now + REPEAT, claim(u32::MAX)), "the old ones are forgotten");
    }
}
