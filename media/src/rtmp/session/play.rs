//! The dialogue of a player (spec media.md 7): asking, pausing, pings, the end.

use std::time::Duration;

use tokio::time::Instant;

use super::names::{query_of, stream_key};
use super::{
    CloseReason, Command, KEY_BYTES_MAX, Message, Session, SessionEvent, Stage, Value, amf,
};

/// Bytes of a query.
const QUERY_BYTES_MAX: usize = 1_024;
/// A player is asked whether it is there; one that neither answers nor takes media is given up.
pub(super) const PING_EVERY: Duration = Duration::from_secs(30);
pub(super) const PLAYER_SILENCE: Duration = Duration::from_secs(90);

impl Session {
    /// A player takes what it is sent: it is there.
    pub const fn moved(&mut self, now: Instant) {
        if let Stage::Playing { heard, .. } = &mut self.stage {
            *heard = now;
        }
    }

    pub(super) fn ping(&mut self, now: Instant, heard: Instant) {
        let stamp = now.saturating_duration_since(self.began).as_millis();
        self.outbox.ping(u32::try_from(stamp).unwrap_or(u32::MAX));
        self.deadline = Some((now + PING_EVERY).min(heard + PLAYER_SILENCE));
    }

    /// The message stream that an accepted player plays on.
    pub const fn playing_on(&self) -> Option<u32> {
        match self.stage {
            Stage::Playing { stream_id, .. } => Some(stream_id),
            _ => None,
        }
    }

    /// What was played is over.
    pub fn unpublished(&mut self) {
        let Stage::Playing { stream_id, .. } = self.stage else {
            return;
        };
        self.outbox.stream_end(stream_id);
        let code = "NetStream.Play.UnpublishNotify";
        self.outbox
            .status(stream_id, "status", code, "This show is over.");
        self.stage = Stage::Closed;
        self.deadline = None;
    }

    pub(super) fn play(&mut self, command: Command, args: Vec<Value>) -> Result<(), CloseReason> {
        let stream_id = command.stream_id;
        let asked = args.first().and_then(Value::as_text).unwrap_or_default();
        let (app, name) = stream_key(&self.app, asked);
        let query = query_of(&self.app, asked);
        let is_long = name.len() > KEY_BYTES_MAX || query.len() > QUERY_BYTES_MAX;
        if !self.may_begin(stream_id) || name.is_empty() || is_long {
            let sentence = "Play once, after connect and createStream, on the stream it gave, the \
                            name of one room: rtmp://HOST/live/ROOM.";
            self.error(stream_id, "NetStream.Play.Failed", sentence);
            self.close(CloseReason::Dialogue);
            return Ok(());
        }
        // Without its query, which may hold a token: the state machine repeats the name. Where to
        // begin and for how long is not asked of a live stream.
        let args = vec![Value::Text(name.clone())];
        let request_id = self
            .inner(&command, args)?
            .play
            .ok_or(CloseReason::Dialogue)?;
        self.stage = Stage::Deciding {
            stream_id,
            request_id,
            is_player: true,
        };
        self.deadline = None;
        self.events
            .push_back(SessionEvent::PlayRequested { app, name, query });
        Ok(())
    }

    /// What the state machine says as data. FFmpeg makes a track of it when its time is not zero,
    /// and of `NetStream.Data.Start` in any case.
    pub(super) fn say_before_media(&mut self, mut message: Message) {
        message.timestamp = 0;
        let values = amf::read(message.payload.clone()).unwrap_or_default();
        if values.first().and_then(Value::as_text) == Some("|RtmpSampleAccess") {
            self.outbox.message(&message);
        }
    }

    /// A player that goes on is sent the newest pictures, not those it missed.
    pub(super) fn pause(&mut self, stream_id: u32, args: &[Value]) {
        let is_paused = match args.first() {
            Some(Value::Boolean(is_paused)) => *is_paused,
            _ => return,
        };
        if self.playing_on() != Some(stream_id) {
            return;
        }
        let (code, sentence) = if is_paused {
            ("NetStream.Pause.Notify", "Paused.")
        } else {
            ("NetStream.Unpause.Notify", "Going on.")
        };
        self.outbox.status(stream_id, "status", code, sentence);
        self.events.push_back(SessionEvent::Paused(is_paused));
    }
}
