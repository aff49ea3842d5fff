//! What the coded bytes say: NAL units, OBUs, parameter sets, sound headers. No IO.

#![deny(clippy::indexing_slicing)]

pub mod aac;
pub mod av1;
mod bits;
pub mod h264;
pub(crate) mod h264_level;
pub mod hevc;
pub mod opus;
