//! Conversion: tracks made from the publisher's for viewers who cannot take them as they are.
//!
//! Codecs run on OS threads of their own; nothing here blocks the runtime.

pub mod decoder;
pub mod encoder;
mod ffi;
