//! WHEP: an offer in, an answer out, a session to run (draft-ietf-wish-whep-04; spec media.md
//! 4.1, 4.2, 4.4).
//!
//! [`accept`] judges the offer, [`playout`] says which frames a viewer is sent and when,
//! [`rendition`] which picture its path carries, [`session`] drives its connection.
//!
//! Not here: routes, who may watch, how many.

mod control;
mod gauges;
mod pace;
mod picture;
mod playout;
mod reader;
mod rendition;
mod session;
mod terms;
#[cfg(test)]
mod tests;
mod track;

use std::sync::Arc;

use tokio::time::Instant;

pub use self::control::{Control, PatchError, Patched};
pub use self::gauges::Measured;
use self::playout::{Playout, Wants};
use self::session::Parts;
pub use self::session::Session;
pub use self::terms::{Rendition, Terms};
use crate::broadcast::Broadcast;
use crate::frame::Kind;
use crate::webrtc::message::{RtpLine, RtpLines};
use crate::webrtc::peer::{Peer, PeerSpec};
use crate::webrtc::sdp::{Offer, OfferError};
use crate::webrtc::{Answer, Credentials, Names, Port};

/// Why an offer was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum WhepError {
    /// 400 or 422: the offer itself.
    #[error(transparent)]
    Offer(#[from] OfferError),
    /// 503: what the viewer needs cannot be made now.
    #[error("picture or sound cannot be converted for this viewer now")]
    Unavailable,
    /// 422: the broadcast has no such rendition.
    #[error("this show has no rendition {0}; leave it out for what the path carries")]
    NoRendition(Rendition),
    /// 422: what the viewer would be sent is H.264, which it did not offer.
    #[error("{0}: offer H264/90000 with packetization-mode=1")]
    NeedsH264(&'static str),
}

/// An accepted viewer.
#[derive(Debug)]
pub struct Accepted {
    /// 128 random bits: knowing it is the right to end the session.
    pub id: String,
    /// The SDP answer.
    pub answer: String,
    /// What the server keeps to reach the session.
    pub control: Control,
    /// Run it, or the viewer gets nothing.
    pub session: Session,
}

/// Judges an offer and builds its session.
///
/// # Errors
/// [`WhepError`] says which status it is.
pub fn accept(
    port: &Arc<Port>,
    broadcast: &Arc<Broadcast>,
    offer: &str,
    terms: Terms,
    now: Instant,
) -> Result<Accepted, WhepError> {
    let (offer, wants) = judge(broadcast, offer, terms.rendition)?;
    let mut random = Random::new();
    let local = Credentials {
        ufrag: random.text(UFRAG_DIGITS),
        password: random.text(PASSWORD_DIGITS),
    };
    let mut line = |rate| RtpLine {
        rate,
        offset: random.number(),
    };
    let lines = RtpLines {
        video: offer.video.is_some().then(|| line(90_000)),
        audio: offer.audio.is_some().then(|| line(48_000)),
    };
    let video_ssrc = random.number() | 1;
    let spec = PeerSpec {
        names: Names::new(local.clone(), offer.ice.clone()),
        video_ssrc,
        // Odd and even: they are never the same.
        audio_ssrc: random.number() & !1,
        lines,
        offer,
    };
    let answer = Answer {
        offer: &spec.offer,
        session: u64::from(random.number()),
        ice: &local,
        fingerprint: &port.identity().fingerprint,
        candidates: &port.candidates(),
        video_ssrc: spec.video_ssrc,
        audio_ssrc: spec.audio_ssrc,
    };
    let answer = answer.text();
    let inbox = port.enter(&local.ufrag);
    let mid = spec.offer.sections.first().map_or("", |s| s.mid.as_str());
    let control = Control::new(Arc::clone(port), inbox.address(), &spec.offer.ice, mid);
    control.renew(terms.expires_at);
    let parts = Parts {
        gauges: control.gauges(),
        lease: control.lease(),
        viewer: terms.viewer,
        port: Arc::clone(port),
        broadcast: Arc::clone(broadcast),
        playout: Playout::new(broadcast, wants),
        peer: Peer::new(&spec, port.identity(), now.into_std()),
        lines: spec.lines,
        inbox,
    };
    Ok(Accepted {
        id: random.id(),
        answer,
        control,
        session: Session::new(parts, now),
    })
}

/// What is taken of an offer, if what the viewer needs can be given.
fn judge(
    broadcast: &Broadcast,
    offer: &str,
    rendition: Option<Rendition>,
) -> Result<(Offer, Wants), WhepError> {
    let source = broadcast.source(Kind::Video);
    let offer = Offer::read(offer, source.as_deref())?;
    let wants = Wants {
        picture: offer.video.as_ref().map(|choice| choice.decodes),
        sound: offer.audio.is_some(),
        rendition,
    };
    if let Some(missing) = rendition.filter(|r| !r.is_of(broadcast)) {
        return Err(WhepError::NoRendition(missing));
    }
    if wants
        .picture
        .is_some_and(|picture| !picture.can_show_made())
    {
        let rendition = rendition.unwrap_or(Rendition::Source);
        if let Some(why) = track::needs_h264(broadcast, rendition) {
            return Err(WhepError::NeedsH264(why));
        }
    }
    let mut made = wants.made(broadcast);
    if made.any(|track| broadcast.unavailable(track).is_some()) {
        return Err(WhepError::Unavailable);
    }
    Ok((offer, wants))
}

/// Digits of an ICE name and password: 96 and 192 bits.
pub(crate) const UFRAG_DIGITS: usize = 16;
pub(crate) const PASSWORD_DIGITS: usize = 32;

/// Random bytes, each used once: what is in every packet says nothing of what is secret.
pub(crate) struct Random([u8; 128], usize);

impl Random {
    pub(crate) fn new() -> Self {
        let mut bytes = [0; 128];
        getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
        Self(bytes, 0)
    }

    fn bytes(&mut self, count: usize) -> impl Iterator<Item = u8> {
        let at = self.1;
        self.1 += count;
        let taken = self
            .0
            .get(at..self.1)
            .expect("what is drawn in all is less");
        taken.iter().copied()
    }

    /// Letters, digits, plus and slash, six bits each.
    pub(crate) fn text(&mut self, digits: usize) -> String {
        const DIGITS: &[u8; 64] =
            b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz+/";
        let digit = |byte: u8| char::from(DIGITS[usize::from(byte & 63)]);
        self.bytes(digits).map(digit).collect()
    }

    fn number(&mut self) -> u32 {
        self.bytes(4)
            .fold(0, |sum, byte| sum << 8 | u32::from(byte))
    }

    /// The session id: 128 bits in hex.
    pub(crate) fn id(&mut self) -> String {
        self.bytes(16).map(|byte| format!("{byte:02x}")).collect()
    }
}
