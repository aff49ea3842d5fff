//! Encoders that do not do what they should.

use std::thread::sleep;
use std::time::Duration;

use ffmpeg_next::Error;

use crate::frame::TrackId;
use crate::transcode::ConvertConfig;

/// What goes wrong with an encoder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Each picture takes so long.
    Slow(Duration),
    /// After so many pictures it refuses every other.
    Refuses(u32),
    /// After so many pictures it gives nothing.
    Silent(u32),
    /// After so many pictures its thread ends.
    Ends(u32),
}

impl Fault {
    /// Comes before each picture; true when nothing is made of it.
    pub(crate) fn strike(&mut self) -> Result<bool, Error> {
        match self {
            Self::Slow(time) => sleep(*time),
            Self::Refuses(left) | Self::Silent(left) | Self::Ends(left) if *left > 0 => *left -= 1,
            Self::Refuses(_) => return Err(Error::External),
            Self::Silent(_) => return Ok(true),
            Self::Ends(_) => panic!("this is what a test asked for"),
        }
        Ok(false)
    }
}

impl ConvertConfig {
    pub(crate) fn fault(&self, track: TrackId) -> Option<Fault> {
        let mut faults = self.faults.iter();
        let found = faults.find(|(id, _)| *id == track);
        found.map(|(_, fault)| fault.clone())
    }
}
