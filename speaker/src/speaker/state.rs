//! What the decision task remembers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use patina_runtime::config_watch::ConfigKeeper;
use patina_speaker_core::intent::{Cache, Intent};
use patina_speaker_core::l2::ownership::{self, Ownership};
use patina_speaker_core::view::{InterfaceView, Members, Options, ServiceId};

use super::export::Exported;
use crate::conflicts::Sightings;
use crate::l2::Heard;
use crate::moves::Moves;
use crate::settings::Settings;
use crate::status::ShownL2;

/// What the last decision left, and what happened since.
#[derive(Debug)]
pub(super) struct State {
    pub(super) keeper: ConfigKeeper,
    pub(super) options: Options,
    pub(super) interfaces: Vec<InterfaceView>,
    /// The live speakers, with us as we are now.
    pub(super) members: Members,
    /// As the membership last told it.
    pub(super) membership: patina_speaker_core::membership::State,
    pub(super) intent: Intent,
    /// What it leaves for the next one.
    pub(super) cache: Cache,
    /// What went to the routers.
    pub(super) exported: Exported,
    /// There was a decision.
    pub(super) decided: bool,
    /// We are about to end.
    pub(super) leaving: bool,
    pub(super) ownership: Ownership,
    /// Of the fence, as ownership knows it: what it says is no older.
    pub(super) opening: u64,
    pub(super) moves: Moves,
    pub(super) sightings: Sightings,
    /// The last signs of life of speakers that died since the last decision.
    pub(super) deaths: BTreeMap<String, Instant>,
    /// Services that this node announced when this process started.
    pub(super) known: BTreeSet<ServiceId>,
    /// Addresses that we announce.
    pub(super) holding: BTreeSet<IpAddr>,
    /// Services that are shown as announced by us.
    pub(super) shown: Arc<BTreeMap<ServiceId, ShownL2>>,
    /// What is shown may be out of date.
    pub(super) stale: bool,
    /// What is shown stays so long.
    pub(super) show_at: Option<Instant>,
    /// What only the API server says can wait until then.
    pub(super) rest: Option<Instant>,
}

impl State {
    pub(super) fn new(settings: &Settings, interfaces: Vec<InterfaceView>) -> Self {
        Self {
            keeper: ConfigKeeper::default(),
            options: settings.options(),
            interfaces,
            members: Members::default(),
            membership: patina_speaker_core::membership::State::default(),
            intent: Intent::default(),
            cache: Cache::default(),
            exported: Exported::default(),
            decided: false,
            leaving: false,
            ownership: Ownership::new(&settings.node_name, ownership::Settings::default()),
            opening: 0,
            moves: Moves::default(),
            sightings: Sightings::default(),
            deaths: BTreeMap::new(),
            known: BTreeSet::new(),
            holding: BTreeSet::new(),
            shown: Arc::default(),
            stale: false,
            show_at: None,
            rest: None,
        }
    }

    pub(super) fn hear(&mut self, now: Instant, heard: Heard) {
        let Heard::Claim(claim) = heard;
        self.ownership.handle(now, ownership::Input::Heard(claim));
    }

    /// When something is to be done although nothing happens.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let show = self.show_at.filter(|_| self.stale);
        [self.ownership.poll_timeout(), self.sightings.deadline(), show].into_iter().flatten().min()
    }
}
