//! What the decision task asks of the driver, and what the driver tells it.

use std::sync::Arc;

use patina_speaker_core::l2::duty::{Claim, Duties};
use patina_speaker_core::view::InterfaceView;

/// What to do for which address, and the interfaces there are. The newest value is all that counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// All interfaces of the node that are not excluded.
    pub interfaces: Arc<Vec<InterfaceView>>,
    /// Each address with what to do for it.
    pub duties: Arc<Duties>,
    /// [`Fence::openings`](crate::fence::Fence::openings) when that was decided: done is only what was decided after the last one.
    pub opening: u64,
}

/// Something that the driver saw on the wire and somebody else decides about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Another station names an address of ours as its own.
    Claim(Claim),
}
