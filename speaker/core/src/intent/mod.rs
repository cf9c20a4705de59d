//! Snapshot in, intent out.

mod verdict;
mod why_not;

pub use verdict::{Candidate, Intent, L2Announcement, Verdict};
pub use why_not::WhyNot;
