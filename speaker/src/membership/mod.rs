//! The driver of the membership machines: sockets, keys, deadlines, on a thread of its own. It decides nothing.

use patina_speaker_core::membership::State;
use patina_speaker_core::view::Member;
use tokio::sync::{mpsc, watch};

/// What the rest of the speaker has of the membership.
#[derive(Clone, Debug)]
pub struct Members {
    /// Who is alive, what they say, whether we are fenced. A change rings the decision task's bell.
    pub state: watch::Receiver<State>,
    /// What we say of ourselves.
    pub say: watch::Sender<Member>,
    /// A node was heard on the wire that is taken to be dead. May be dropped when full.
    pub hint: mpsc::Sender<String>,
    /// `true`: farewell; the sender is told by the end of the process only.
    pub leave: watch::Sender<bool>,
}
