//! The causes, as a word for metrics and annotations and as a part of a sentence.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Why this node announces an address from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// This speaker has just started; what was before is not known.
    Started,
    /// Nobody announced it before.
    First,
    /// This node had it before and let go of it for a while.
    Again,
    /// The speaker of the node is dead.
    Died {
        /// The node.
        from: Arc<str>,
        /// How that is known.
        how: Gone,
    },
    /// The speaker of the node ended as it should.
    Left {
        /// The node.
        from: Arc<str>,
    },
    /// The speaker of the node is about to end, or the node is to be drained.
    Draining {
        /// The node.
        from: Arc<str>,
    },
    /// The speaker of the node ended and is there again, so fast that nobody missed it.
    Restarted {
        /// The node.
        from: Arc<str>,
    },
    /// An interface of the node has no carrier, or reaches nobody.
    LinkLost {
        /// The node.
        from: Arc<str>,
    },
    /// The node may not announce any more.
    Excluded {
        /// The node.
        from: Arc<str>,
        /// Why, after "which".
        why: &'static str,
    },
    /// This node comes first in the order: it is back, or new.
    Better {
        /// The node.
        from: Arc<str>,
    },
    /// The node is no candidate any more.
    Changed {
        /// The node.
        from: Arc<str>,
    },
}

/// How it is known that a speaker is dead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gone {
    /// We watched it.
    Silent(Duration),
    /// Another speaker said so; empty: several.
    Reported(String),
    /// The API server knows none on that node.
    NoSpeaker,
}

impl Cause {
    /// Every [`Cause::word`].
    pub const WORDS: [&'static str; 11] = [
        "started",
        "first",
        "again",
        "speakerDied",
        "speakerLeft",
        "draining",
        "speakerRestarted",
        "linkLost",
        "nodeExcluded",
        "betterCandidate",
        "candidatesChanged",
    ];

    /// One word, for metrics and annotations.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::First => "first",
            Self::Again => "again",
            Self::Died { .. } => "speakerDied",
            Self::Left { .. } => "speakerLeft",
            Self::Draining { .. } => "draining",
            Self::Restarted { .. } => "speakerRestarted",
            Self::LinkLost { .. } => "linkLost",
            Self::Excluded { .. } => "nodeExcluded",
            Self::Better { .. } => "betterCandidate",
            Self::Changed { .. } => "candidatesChanged",
        }
    }

    /// The node that announced it before.
    #[must_use]
    pub fn from(&self) -> Option<&str> {
        self.predecessor().map(|from| &**from)
    }

    /// The same, to be kept.
    #[must_use]
    pub fn predecessor(&self) -> Option<&Arc<str>> {
        match self {
            Self::Started | Self::First | Self::Again => None,
            Self::Died { from, .. }
            | Self::Left { from }
            | Self::Draining { from }
            | Self::Restarted { from }
            | Self::LinkLost { from }
            | Self::Excluded { from, .. }
            | Self::Better { from }
            | Self::Changed { from } => Some(from),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(from) = self.from() {
            write!(f, "taken over from node {from:?}, which ")?;
        }
        match self {
            Self::Started => f.write_str("this speaker has just started"),
            Self::First => f.write_str("nobody announced it before"),
            Self::Again => f.write_str("this node announces it again"),
            Self::Died { how: Gone::Silent(time), .. } => write!(f, "was silent for {} ms", time.as_millis()),
            Self::Died { how: Gone::Reported(by), .. } if by.is_empty() => {
                f.write_str("several other speakers say is dead")
            }
            Self::Died { how: Gone::Reported(by), .. } => write!(f, "the speaker of node {by} says is dead"),
            Self::Died { how: Gone::NoSpeaker, .. } => f.write_str("has no live speaker"),
            Self::Left { .. } => f.write_str("said farewell"),
            Self::Draining { .. } => f.write_str("is being drained or restarted"),
            Self::Restarted { .. } => f.write_str("was started anew"),
            Self::LinkLost { .. } => f.write_str("lost the link to this network"),
            Self::Excluded { why, .. } => f.write_str(why),
            Self::Better { .. } => f.write_str("comes after this node in the order of candidates"),
            Self::Changed { .. } => {
                f.write_str("is no candidate any more (endpoints or advertisements changed)")
            }
        }
    }
}
