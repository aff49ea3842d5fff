//! WHEP: an offer in, an answer out, a session to run (draft-ietf-wish-whep-04; spec media.md
//! 4.1, 4.2, 4.4).
//!
//! [`accept`] judges the offer, [`playout`] says which frames a viewer is sent and when,
//! [`session`] drives its connection.
//!
//! Not here: routes, who may watch, how many; bandwidth estimation and rungs.

mod pace;
mod picture;
mod playout;
mod reader;
mod session;
#[cfg(test)]
mod tests;
mod track;

use std::sync::Arc;

use tokio::time::Instant;

use self::playout::{Playout, Wants};
use self::session::Parts;
pub use self::session::Session;
use crate::broadcast::Broadcast;
use crate::webrtc::Port;
use crate::webrtc::message::{RtpLine, RtpLines};
use crate::webrtc::peer::{Peer, PeerSpec, Protection};
use crate::webrtc::sdp::{Offer, OfferError};

/// Why an offer was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum WhepError {
    /// 400 or 422: the offer itself.
    #[error(transparent)]
    Offer(#[from] OfferError),
    /// 503: what the viewer needs cannot be made now.
    #[error("picture or sound cannot be converted for this viewer now")]
    Unavailable,
    /// The engine refused an offer that had passed our judgement.
    #[error("the offer cannot be answered")]
    Engine(#[source] rtc::shared::error::Error),
}

/// An accepted viewer.
#[derive(Debug)]
pub struct Accepted {
    /// 128 random bits: knowing it is the right to end the session.
    pub id: String,
    /// The SDP answer.
    pub answer: String,
    /// Run it, or the viewer gets nothing.
    pub session: Session,
}

/// Judges an offer and builds its session. Costs milliseconds of CPU: not for a media task.
///
/// # Errors
/// [`WhepError`] says which status it is.
pub fn accept(
    port: &Arc<Port>,
    broadcast: &Arc<Broadcast>,
    offer: &str,
    now: Instant,
) -> Result<Accepted, WhepError> {
    let offer = Offer::read(offer, track::source_profile(broadcast))?;
    let wants = Wants {
        profile: offer.video.as_ref().map(|choice| choice.profile),
        sound: offer.audio.is_some(),
    };
    let mut made = wants.made(broadcast);
    if made.any(|track| broadcast.unavailable(track).is_some()) {
        return Err(WhepError::Unavailable);
    }
    let mut random = [0_u8; 64];
    getrandom::fill(&mut random).expect("the operating system gives random bytes");
    let (id, ufrag, password) = names(&random);
    let number = |at: usize| {
        random
            .iter()
            .skip(at)
            .take(4)
            .fold(0_u32, |sum, b| sum << 8 | u32::from(*b))
    };
    let lines = RtpLines {
        video: offer.video.is_some().then(|| RtpLine {
            rate: 90_000,
            offset: number(40),
        }),
        audio: offer.audio.is_some().then(|| RtpLine {
            rate: 48_000,
            offset: number(44),
        }),
    };
    let spec = PeerSpec {
        offer,
        ufrag,
        password,
        video_ssrc: number(48) | 1,
        audio_ssrc: (number(52) | 1) ^ 2,
        lines,
    };
    let inbox = port.enter(&spec.ufrag);
    let (peer, answer) =
        Peer::build(port, &spec, Protection::Gcm, now.into_std()).map_err(WhepError::Engine)?;
    let parts = Parts {
        port: Arc::clone(port),
        broadcast: Arc::clone(broadcast),
        playout: Playout::new(broadcast, wants),
        spec,
        peer,
        inbox,
    };
    let session = Session::new(parts, now);
    Ok(Accepted {
        id,
        answer,
        session,
    })
}

/// Session id (128 bits), ICE name and password from random bytes.
fn names(random: &[u8; 64]) -> (String, String, String) {
    const DIGITS: &[u8; 64] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz+/";
    let (id, rest) = random.split_at(16);
    let text = |bytes: &[u8], digits: usize| -> String {
        bytes
            .iter()
            .map(|b| char::from(DIGITS[usize::from(*b) % digits]))
            .collect()
    };
    let id = id.iter().map(|b| format!("{b:02x}")).collect();
    let (ufrag, rest) = rest.split_at(16);
    (id, text(ufrag, 64), text(rest.split_at(28).0, 64))
}
