//! What the others know of us, and we of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use patina_speaker_core::l2::ownership;
use patina_speaker_core::membership::{self, Down};
use patina_speaker_core::view::Member;

use super::{Speaker, State};
use crate::membership::Members;
use crate::moves;
use crate::watch::replace;

/// Waits until the membership has something new; for ever without one.
pub(super) async fn changed(members: &mut Option<Members>) {
    if let Some(members) = members
        && members.state.changed().await.is_ok()
    {
        return;
    }
    // Its sender lives as long as the process.
    std::future::pending().await
}

impl Speaker {
    /// Tells the others what we are now.
    pub(super) fn say(&self, state: &State) {
        let Some(members) = &self.members else { return };
        members.say.send_if_modified(|said| replace(said, ourselves(state)));
    }

    /// Takes in what the membership, or without one the API server, says. True when the members are others than before.
    pub(super) fn follow(&mut self, state: &mut State) -> bool {
        let Some(members) = &mut self.members else {
            return replace(&mut state.members, self.cluster.views().members.clone());
        };
        let now = Instant::now();
        let news = members.state.borrow_and_update().clone();
        let before = std::mem::replace(&mut state.membership, news);
        let news = &state.membership;
        // Before the first round a speaker that we have not heard of would be a stranger.
        if news.joined && !(before.joined && Arc::ptr_eq(&before.stations, &news.stations)) {
            state.ownership.handle(now, ownership::Input::Stations(Arc::clone(&news.stations)));
        }
        for (node, how) in moves::died(&before.members, &news.members, &news.down) {
            let silent = if let Down::Silent(time) = how { *time } else { std::time::Duration::ZERO };
            state.deaths.insert(node.clone(), now.checked_sub(silent).unwrap_or(now));
        }
        if news.fenced && !before.fenced && before.joined {
            self.metrics.fences.inc();
        }
        if !Arc::ptr_eq(&before.down, &news.down) {
            state.ownership.handle(now, ownership::Input::Missed(missed(news)));
        }
        if returned(&before, news) {
            state.ownership.handle(now, ownership::Input::Rejoined);
        }
        let mut members = (*news.members).clone();
        // Of ourselves we know best, and before the others do.
        let told = members.insert(self.settings.node_name.clone(), ourselves(state));
        if let (Some(told), Some(us)) = (told, members.get_mut(&self.settings.node_name)) {
            isolated_as_told(us, &told);
        }
        replace(&mut state.members, members)
    }
}

/// Somebody is there again whom we took to be dead: the network was parted, and has healed.
fn returned(before: &membership::State, now: &membership::State) -> bool {
    let dead: &BTreeMap<String, Down> = &before.down;
    dead.iter().any(|(node, how)| *how != Down::Left && now.members.contains_key(node))
}

/// Those that did not say farewell.
fn missed(now: &membership::State) -> BTreeSet<Arc<str>> {
    let missed = now.down.iter().filter(|(_, how)| **how != Down::Left);
    missed.map(|(node, _)| node.as_str().into()).collect()
}

/// Which of our interfaces reach nobody is for the membership to say, and the others know it from there.
fn isolated_as_told(us: &mut Member, told: &Member) {
    for interface in us.interfaces.iter_mut().flatten() {
        interface.isolated =
            told.interfaces.iter().flatten().any(|other| other.name == interface.name && other.isolated);
    }
}

fn ourselves(state: &State) -> Member {
    Member {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        starting: !state.decided,
        draining: state.leaving,
        interfaces: Some(state.interfaces.iter().map(|interface| interface.told()).collect()),
    }
}
