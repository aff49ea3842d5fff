//! The live media core.
#![warn(missing_docs)]

pub mod frame;
pub mod stats;
pub mod time;
