//! What others need of the controller's shell: how it reads a Service. The rest is the program (`main.rs`).
#![warn(missing_docs)]

pub mod convert;
