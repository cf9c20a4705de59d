//! A membership that is always right after a while: each speaker learns each truth after a delay of its own. It explores
//! orders of news that the real one seldom shows, and costs nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use patina_speaker_core::l2::wire::Mac;
use patina_speaker_core::view::{Member, Members};

/// What one speaker knows.
#[derive(Default)]
pub(crate) struct Ideal {
    pub(crate) joined: bool,
    pub(crate) members: Members,
    pub(crate) stations: BTreeMap<Mac, Arc<str>>,
    /// It stalled, and was not let in again.
    pub(crate) fenced: bool,
}

impl Ideal {
    /// The truth about another speaker has come. Whether it is news.
    pub(crate) fn learn(&mut self, name: &str, truth: Option<&Member>) -> bool {
        match truth {
            Some(member) => {
                for interface in member.interfaces.iter().flatten() {
                    self.stations.insert(interface.mac, name.into());
                }
                self.members.insert(name.to_owned(), member.clone()).as_ref() != Some(member)
            }
            None => self.members.remove(name).is_some(),
        }
    }
}
