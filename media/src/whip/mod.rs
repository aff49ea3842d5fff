//! WHIP: an offer in, an answer out, a publisher's session to run (RFC 9725; spec media.md 4.1 to
//! 4.3).
//!
//! [`accept`] judges the offer and answers it, [`Session`] runs it. ICE is the lite end that
//! viewers have too ([`path`]); DTLS, SRTP and the reports are the `webrtc` crate's
//! ([`connection`]); the order of packets, what is asked for again and what is whole is
//! [`ingest`]'s.
//!
//! Not here: routes, who may publish.

mod clock;
mod connection;
pub(crate) mod depacketise;
mod ingest;
mod path;
pub(crate) mod reorder;
mod runtime;
mod session;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use self::connection::Connection;
use self::path::Path;
pub use self::session::Session;
use crate::webrtc::sdp::{OfferError, PublishOffer};
use crate::webrtc::{Credentials, Names, Port, candidate_lines};
use crate::whep::{Control, PASSWORD_DIGITS, Random, UFRAG_DIGITS};

/// An answer takes milliseconds; OBS waits for eight seconds.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Why an offer was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum WhipError {
    /// 400 or 422: the offer itself.
    #[error(transparent)]
    Offer(#[from] OfferError),
    /// 400: it looked readable, but the connection could not be set up with it.
    #[error("the offer cannot be answered: {0}")]
    Unanswerable(String),
    /// 503: it took too long.
    #[error("the server is busy")]
    Busy,
}

/// What a server must say of a publisher.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Bits per second it may send.
    pub bitrate_bps_max: u64,
}

/// An accepted publisher.
#[derive(Debug)]
pub struct Accepted {
    /// 128 random bits: knowing it is the right to end the session.
    pub id: String,
    /// The SDP answer.
    pub answer: String,
    /// What the server keeps to reach the session.
    pub control: Control,
    /// Run it, or nothing comes of it.
    pub session: Session,
}

/// Judges an offer and builds its session.
///
/// # Errors
/// [`WhipError`] says why not; nothing is left behind then.
pub async fn accept(
    port: &Arc<Port>,
    offer: &str,
    terms: Terms,
    now: Instant,
) -> Result<Accepted, WhipError> {
    let offer = PublishOffer::read(offer)?;
    let mut random = Random::new();
    let mut credentials = || Credentials {
        ufrag: random.text(UFRAG_DIGITS),
        password: random.text(PASSWORD_DIGITS),
    };
    let (local, within) = (credentials(), credentials());
    let inbox = port.enter(&local.ufrag);
    let control = Control::new(Arc::clone(port), inbox.address(), &offer.ice, &offer.mid);
    let names = Names::new(local.clone(), offer.ice.clone());
    let path = Arc::new(Path::new(port, inbox, names, within.clone(), now));
    let opening = Connection::open(&path, within, &offer);
    let opened = timeout(ANSWER_MAX, opening).await;
    let opened = opened.map_err(|_elapsed| WhipError::Busy)?;
    let (connection, answer) = opened.map_err(|err| WhipError::Unanswerable(err.to_string()))?;
    Ok(Accepted {
        id: Random::new().id(),
        answer: outward(&answer, &local, &candidate_lines(&port.candidates())),
        control,
        session: Session::new(connection, path, (&offer, terms), now),
    })
}

/// The connection's answer with the names and the addresses that the publisher finds.
fn outward(answer: &str, local: &Credentials, candidates: &str) -> String {
    let mut out = String::with_capacity(answer.len() + candidates.len());
    let mut sections = 0;
    for line in answer.lines().map(str::trim_end) {
        let is_section = line.starts_with("m=");
        // All sections take the first one's path.
        if is_section && sections == 1 {
            out.push_str(candidates);
        }
        sections += u32::from(is_section);
        let named = [
            ("a=ice-ufrag:", &local.ufrag),
            ("a=ice-pwd:", &local.password),
        ];
        if let Some((name, value)) = named.iter().find(|(name, _)| line.starts_with(name)) {
            out.extend([name, value.as_str(), "\r\n"]);
        } else if !line.starts_with("a=candidate:") && line != "a=end-of-candidates" {
            out.extend([line, "\r\n"]);
        }
    }
    if sections == 1 {
        out.push_str(candidates);
    }
    out
}
