//! What the coded bytes say: NAL units, parameter sets, sound headers. No IO.

#![deny(clippy::indexing_slicing)]

pub mod aac;
pub mod h264;
