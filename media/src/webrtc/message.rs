//! The data channel protocol `lamplight.cues.1` (spec media.md 1.5 rule 5): JSON text, server to
//! player.

use base64::Engine;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::cue::CueNews;
use crate::time::{MediaTime, micros};

/// Label of the channel that carries cues.
pub(crate) const LABEL: &str = "cues";
/// Its protocol, with the version of the messages.
pub(crate) const PROTOCOL: &str = "lamplight.cues.1";

/// RTP time of a session: `T × rate + constant`, for its whole life (rule 6).
#[derive(Clone, Copy, Debug)]
pub struct RtpLine {
    /// Ticks per second.
    pub rate: u32,
    /// The RTP time of T = 0.
    pub offset: u32,
}

impl RtpLine {
    /// The RTP time of a point on T.
    pub fn at(self, t: MediaTime) -> u32 {
        let ticks = t.to_ticks(self.rate).rem_euclid(1 << 32);
        u32::try_from(ticks).unwrap_or(0).wrapping_add(self.offset)
    }
}

/// The two lines of a session.
#[derive(Clone, Copy, Debug, Default)]
pub struct RtpLines {
    /// Of the picture, when it is sent.
    pub video: Option<RtpLine>,
    /// Of the sound, when it is sent.
    pub audio: Option<RtpLine>,
}

impl RtpLines {
    fn at(&self, t: MediaTime) -> Value {
        json!({ "video": self.video.map(|l| l.at(t)), "audio": self.audio.map(|l| l.at(t)) })
    }
}

/// The map between RTP time, T and the time of day.
pub(crate) fn clock(lines: &RtpLines, t: MediaTime, wall: OffsetDateTime) -> String {
    let line = |line: Option<RtpLine>| line.map(|l| json!({ "rtp": l.at(t), "rate": l.rate }));
    json!({
        "type": "clock",
        "t_us": t.as_micros(),
        "wall": wall.format(&Rfc3339).unwrap_or_default(),
        "video": line(lines.video),
        "audio": line(lines.audio),
    })
    .to_string()
}

/// News of a cue.
pub fn cue(lines: &RtpLines, news: &CueNews) -> String {
    match news {
        CueNews::Opened(cue) => json!({
            "type": "cue",
            "id": cue.id,
            "class": cue.class,
            "t_us": cue.t.as_micros(),
            "rtp": lines.at(cue.t),
            "duration_us": cue.duration.map(micros),
            "data": base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&cue.payload),
        }),
        CueNews::Closed { cue, t } => json!({
            "type": "cue_end",
            "id": cue.id,
            "t_us": t.as_micros(),
            "rtp": lines.at(*t),
        }),
    }
    .to_string()
}

/// The player had better connect anew.
pub(crate) fn reconnect() -> String {
    json!({ "type": "reconnect" }).to_string()
}

/// The session ends; the player closes itself.
pub(crate) fn bye(reason: &str) -> String {
    json!({ "type": "bye", "reason": reason }).to_string()
}
