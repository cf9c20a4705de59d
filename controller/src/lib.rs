//! What others need of the controller's shell: how it reads Services, nodes and their networks. The rest is the program (`main.rs`).
#![warn(missing_docs)]

pub mod conflicts;
pub mod convert;
pub mod surroundings;
