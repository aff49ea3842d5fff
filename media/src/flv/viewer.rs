//! A viewer over HTTP-FLV or RTMP (spec media.md 7): what its connection is to be sent, slice by
//! slice.
//!
//! Invariants
//! - Whoever writes asks for each slice when the one before is on its way: there is no queue but
//!   the rings, and at most [`SLICES_MAX`] slices or [`BYTES_MAX`] and one frame are in hand.
//! - The first picture, and the first after frames were passed over, is a keyframe; sound begins
//!   with it. Time never goes back within a track.
//! - A header of a track stands before its first frame, and again after its parameters changed or
//!   the publisher returned.
//!
//! Not here: who may watch, HTTP, sockets.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::lane::{self, Lane};
use super::muxer::Muxer;
pub use super::watched::Control;
pub(crate) use super::watched::STALLED_AFTER;
use super::watched::Shared;
use super::write;
use crate::broadcast::{Broadcast, Broadcasts, Presence, Start};
use crate::frame::{Codec, Frame, Kind, TrackId};
use crate::rtmp::amf::Value;
use crate::stats::{Histogram, Stats};
use crate::time::MediaTime;
use crate::whep::Rendition;

/// What is gathered at once.
pub const SLICES_MAX: usize = 64;
/// See [`SLICES_MAX`].
pub const BYTES_MAX: usize = 256 << 10;
/// A viewer farther behind goes to the newest keyframe.
const LAG_MAX: Duration = Duration::from_secs(3);
/// A connection that takes this much in [`super::watched::STALLED_AFTER`] is alive.
const SLICE_BYTES_MAX: usize = 64 << 10;
const COUNT_EVERY: Duration = Duration::from_secs(1);

/// What the server settled for one viewer.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// The picture it is shown; `None`: the publisher's.
    pub rendition: Option<Rendition>,
    /// Whether it can hear Opus (enhanced FLV); else Opus is converted to AAC.
    pub takes_opus: bool,
    /// When its session ends.
    pub expires_at: Option<Instant>,
    /// The server's name of the session, told in the metadata to a player that cannot learn it
    /// otherwise.
    pub session: Option<Arc<str>>,
    /// The server's name of the person, so that it counts once over all outputs.
    pub viewer: Option<Arc<str>>,
    /// How long frames may wait for others to be sent with them.
    pub merge: Duration,
}

/// Why a viewer is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The broadcast has no such rendition.
    #[error("this show has no rendition {0}; leave it out for the publisher's picture")]
    NoRendition(Rendition),
    /// What it needs cannot be made now.
    #[error("picture or sound cannot be converted for this viewer now")]
    Unavailable,
}

/// One viewer, from its request to its end.
#[derive(Debug)]
pub struct Viewer {
    hub: Arc<Broadcasts>,
    muxer: Muxer,
    shared: Arc<Shared>,
    terms: Terms,
    _presence: Presence,
    picture: Option<Lane>,
    sound: Option<Lane>,
    has_begun: bool,
    is_over: bool,
    /// Decode time of the newest picture sent; of the newest sound without one.
    newest: Option<MediaTime>,
    slices: VecDeque<Bytes>,
    /// Of `slices`.
    bytes: usize,
    /// When the frames in hand came that the viewer did not have to catch up with.
    arrived: Vec<Instant>,
    began: Option<Instant>,
    delay: Arc<Histogram>,
    /// What of the shared counters the hub has, and since when.
    counted: (u64, u64),
    counted_at: Instant,
}

/// Whether a viewer could be served: what [`open`] would refuse.
///
/// # Errors
/// [`Refused`].
pub fn check(broadcast: &Broadcast, terms: &Terms) -> Result<(), Refused> {
    if let Some(missing) = terms.rendition.filter(|r| !r.is_of(broadcast)) {
        return Err(Refused::NoRendition(missing));
    }
    let tracks = [Some(picture_of(terms)), sound_of(broadcast, terms)];
    let mut made = tracks.into_iter().flatten().filter(|t| t.is_made());
    if made.any(|track| broadcast.unavailable(track).is_some()) {
        return Err(Refused::Unavailable);
    }
    Ok(())
}

/// Opens a session over HTTP-FLV. `leave` ends it.
///
/// # Errors
/// [`Refused`].
pub fn open(
    hub: &Arc<Broadcasts>,
    broadcast: &Arc<Broadcast>,
    terms: Terms,
    leave: CancellationToken,
) -> Result<(Viewer, Control), Refused> {
    open_as(Muxer::Flv, (hub, broadcast), terms, leave)
}

/// The same over RTMP, on a message stream.
pub(crate) fn open_rtmp(
    stream_id: u32,
    hub_and_broadcast: (&Arc<Broadcasts>, &Arc<Broadcast>),
    terms: Terms,
    leave: CancellationToken,
) -> Result<(Viewer, Control), Refused> {
    open_as(Muxer::Rtmp(stream_id), hub_and_broadcast, terms, leave)
}

fn open_as(
    muxer: Muxer,
    (hub, broadcast): (&Arc<Broadcasts>, &Arc<Broadcast>),
    terms: Terms,
    leave: CancellationToken,
) -> Result<(Viewer, Control), Refused> {
    check(broadcast, &terms)?;
    let now = Instant::now();
    let rendition = terms.rendition.unwrap_or(Rendition::Source);
    let shared = Arc::new(Shared::new(broadcast, rendition, leave, now));
    let audience = broadcast.audience();
    let viewer = Viewer {
        hub: Arc::clone(hub),
        muxer,
        shared: Arc::clone(&shared),
        _presence: audience.enter(now, muxer.output(), terms.viewer.clone()),
        terms,
        picture: None,
        sound: None,
        has_begun: false,
        is_over: false,
        newest: None,
        slices: VecDeque::new(),
        bytes: 0,
        arrived: Vec::new(),
        began: None,
        delay: Arc::default(),
        counted: (0, 0),
        counted_at: now,
    };
    Ok((viewer, Control(shared)))
}

fn picture_of(terms: &Terms) -> TrackId {
    match terms.rendition {
        Some(Rendition::Rung(lines)) => TrackId::Rung(lines),
        Some(Rendition::Source) | None => TrackId::Video,
    }
}

/// The track a viewer hears, once there is sound.
fn sound_of(broadcast: &Broadcast, terms: &Terms) -> Option<TrackId> {
    let source = broadcast.source(Kind::Audio)?;
    let is_made = source.codec == Codec::Opus && !terms.takes_opus;
    Some(if is_made {
        TrackId::Aac
    } else {
        TrackId::Audio
    })
}

impl Viewer {
    /// The next slice of the stream; `None` when it is over. To ask means that the one before is on
    /// its way.
    pub async fn next(&mut self) -> Option<Bytes> {
        self.fill().await;
        let slice = self.slices.pop_front();
        self.is_over |= slice.is_none();
        let slice = slice?;
        self.bytes -= slice.len();
        self.gave(slice.len());
        Some(slice)
    }

    /// The same, all that is in hand at once, into an empty queue; false when it is over.
    /// Cancel-safe.
    pub(crate) async fn next_batch(&mut self, batch: &mut VecDeque<Bytes>) -> bool {
        self.fill().await;
        std::mem::swap(batch, &mut self.slices);
        self.is_over |= batch.is_empty();
        let bytes = std::mem::take(&mut self.bytes);
        self.gave(bytes);
        !self.is_over
    }

    /// Gets something in hand, unless it is over.
    async fn fill(&mut self) {
        self.shared.wants();
        let shared = Arc::clone(&self.shared);
        if shared.leave.is_cancelled() {
            self.slices.clear();
            self.bytes = 0;
        } else if self.slices.is_empty() && !self.is_over {
            let expires = self.terms.expires_at;
            tokio::select! {
                biased;
                () = shared.leave.cancelled() => {}
                () = until(expires) => {
                    shared.reason.get_or_init(|| "expired");
                }
                () = self.gather() => {}
            }
        }
    }

    fn gave(&mut self, bytes: usize) {
        let now = Instant::now();
        self.shared.gives(now, bytes as u64);
        if now.saturating_duration_since(self.counted_at) >= COUNT_EVERY {
            self.counted_at = now;
            self.count();
        }
    }

    /// Waits until the session is to end, whatever its connection does.
    pub(crate) async fn left(&self) {
        self.shared.leave.cancelled().await;
    }

    /// Waits for the end of the session in place of asking for frames. Cancel-safe.
    pub(crate) async fn over(&self) {
        tokio::select! {
            () = self.left() => {}
            () = until(self.terms.expires_at) => {
                self.shared.reason.get_or_init(|| "expired");
            }
            _ = self.shared.broadcast.ended() => {}
        }
    }

    /// Ends it; the first reason counts.
    pub(crate) fn end(&self, reason: &'static str) {
        Control(Arc::clone(&self.shared)).end(reason);
    }

    /// Why it is over.
    pub(crate) fn reason(&self) -> &'static str {
        let said = self.shared.reason.get().copied();
        said.unwrap_or_else(|| match self.shared.leave.is_cancelled() {
            _ if self.shared.broadcast.is_ended() => "ended",
            true => "shutdown",
            false => "gone",
        })
    }

    /// Gathers what is there, or what comes first and soon after it. Nothing: the show is over.
    async fn gather(&mut self) {
        let broadcast = Arc::clone(&self.shared.broadcast);
        if !self.has_begun {
            if broadcast.settled().await.is_err() {
                return;
            }
            self.begin(&broadcast);
        }
        loop {
            // Once begun frames may wait for company; those before are waited for.
            let may_wait = self.began.is_some() && !self.terms.merge.is_zero();
            self.pull(&broadcast);
            let lanes = [&self.picture, &self.sound];
            let is_over = lanes.into_iter().flatten().all(|lane| lane.is_over);
            let is_enough = !self.slices.is_empty() && !may_wait;
            if self.is_full() || is_enough || is_over {
                break;
            }
            if !self.slices.is_empty() {
                // What comes meanwhile is looked for once: to wake for each frame costs more than
                // sending them together saves.
                sleep(self.terms.merge).await;
                self.pull(&broadcast);
                break;
            }
            let waits = self.waits_for_picture();
            let picture = self.picture.as_mut();
            let sound = self.sound.as_mut().filter(|_| !waits);
            tokio::select! {
                () = lane::ready(picture) => {}
                () = lane::ready(sound) => {}
            }
        }
        let now = Instant::now();
        for arrived in self.arrived.drain(..) {
            self.delay.observe(now.saturating_duration_since(arrived));
        }
    }

    fn begin(&mut self, broadcast: &Broadcast) {
        self.has_begun = true;
        let source = broadcast.source(Kind::Video);
        if source.is_some() {
            let cursor = broadcast.cursor(picture_of(&self.terms), Start::NewestKey);
            self.picture = Some(Lane::new(cursor));
        }
        if let Some(track) = sound_of(broadcast, &self.terms) {
            let cursor = broadcast.cursor(track, Start::NewestKey);
            self.sound = Some(Lane::new(cursor));
        }
        let (picture, sound) = (self.picture.as_ref(), self.sound.as_ref());
        let opening = self.muxer.opening(picture.is_some(), sound.is_some());
        // Of a track that is yet to be made nothing is told but its header, when it comes.
        let [picture, sound] = [picture, sound].map(|lane| lane.and_then(|l| l.cursor.info()));
        let mut metadata = write::facts(picture.as_deref(), sound.as_deref());
        if let Some(session) = &self.terms.session {
            metadata.push(("session".to_owned(), Value::text(session)));
        }
        let metadata = self.muxer.metadata(&metadata);
        self.push(opening);
        self.push(metadata);
    }

    /// Takes frames that are there, the older one first, until enough is in hand.
    fn pull(&mut self, broadcast: &Broadcast) {
        let muxer = self.muxer;
        self.change_tracks(broadcast);
        self.catch_up();
        while !self.is_full() {
            let picture = dts_of(self.picture.as_mut());
            let waits = self.waits_for_picture();
            let sound = dts_of(self.sound.as_mut().filter(|_| !waits));
            let lane = match (picture, sound) {
                (None, None) => return,
                (Some(picture), Some(sound)) if sound < picture => self.sound.as_mut(),
                (None, Some(_)) => self.sound.as_mut(),
                (Some(_), _) => self.picture.as_mut(),
            };
            let Some((lane, delivery)) = lane.and_then(|lane| lane.take().map(|d| (lane, d)))
            else {
                return;
            };
            let header = lane.header_for(&delivery.frame, muxer);
            let skipped = u64::from(delivery.skipped);
            self.shared.skipped.fetch_add(skipped, Ordering::Relaxed);
            if let Some(header) = header {
                self.push(header);
            }
            self.send(&delivery.frame);
        }
    }

    /// Sound begins with the picture.
    fn waits_for_picture(&self) -> bool {
        let is_coming = self.picture.as_ref().is_some_and(|lane| !lane.is_over);
        is_coming && self.newest.is_none()
    }

    /// Tracks that appeared take part; one that cannot be made any more gives way to the source.
    fn change_tracks(&mut self, broadcast: &Broadcast) {
        let from = self.newest.map_or(Start::NewestKey, after);
        let is_lost = |lane: &Option<Lane>| {
            let lane = lane.as_ref();
            lane.is_some_and(|lane| lane.cursor.unavailable().is_some())
        };
        let is_picture_lost = is_lost(&self.picture) && self.terms.rendition.is_some();
        if is_picture_lost {
            self.terms.rendition = None;
            self.shared.falls_back();
        }
        if is_picture_lost || self.picture.is_none() && broadcast.source(Kind::Video).is_some() {
            let track = picture_of(&self.terms);
            self.picture = Some(Lane::new(broadcast.cursor(track, from)));
        }
        if is_lost(&self.sound)
            && let Some(lane) = &mut self.sound
        {
            lane.is_over = true;
        }
        if self.sound.is_none()
            && let Some(track) = sound_of(broadcast, &self.terms)
        {
            self.sound = Some(Lane::new(broadcast.cursor(track, from)));
        }
    }

    /// Passes over what is too old to be worth sending.
    fn catch_up(&mut self) {
        let (lead, other) = match (&mut self.picture, &mut self.sound) {
            (Some(picture), sound) => (picture, sound.as_mut()),
            (None, Some(sound)) => (sound, None),
            (None, None) => return,
        };
        let newest = lead.cursor.newest_dts();
        let next = lead.peek().map(|next| next.frame.dts);
        let lag = newest.zip(next).map(|(to, from)| to.saturating_since(from));
        // Who begins at the newest keyframe is as late as it must be.
        if lag.is_none_or(|lag| lag <= LAG_MAX) || self.newest.is_none() {
            return;
        }
        if let Some((at, mut skipped)) = lead.jump() {
            skipped += other.map_or(0, |lane| lane.jump_to(at));
            self.shared.skipped.fetch_add(skipped, Ordering::Relaxed);
        }
    }

    fn send(&mut self, frame: &Frame) {
        let now = Instant::now();
        let is_lead = frame.track.kind() == Kind::Video || self.picture.is_none();
        if is_lead {
            if self.newest.is_none()
                && let Some(sound) = &mut self.sound
                && frame.track.kind() == Kind::Video
            {
                sound.cursor.jump_to(frame.dts);
            }
            self.newest = Some(frame.dts);
        }
        let arrived = frame.arrived.get().copied();
        let is_new = |at: &Instant| self.began.is_some_and(|began| *at > began);
        self.arrived.extend(arrived.filter(is_new));
        if self.shared.sent(now, frame.dts) {
            self.began = Some(now);
            self.delay = self
                .stats()
                .histogram("forward_delay_seconds", self.muxer.word());
            let took = now.saturating_duration_since(self.shared.asked);
            let first = self
                .stats()
                .histogram("first_frame_seconds", self.muxer.word());
            first.observe(took);
        }
        self.muxer.frame(frame, |slice| self.push(slice));
    }

    fn push(&mut self, mut bytes: Bytes) {
        self.bytes += bytes.len();
        while bytes.len() > SLICE_BYTES_MAX {
            self.slices.push_back(bytes.split_to(SLICE_BYTES_MAX));
        }
        if !bytes.is_empty() {
            self.slices.push_back(bytes);
        }
    }

    fn is_full(&self) -> bool {
        // A frame of most sizes has three slices.
        self.slices.len() + 3 > SLICES_MAX || self.bytes >= BYTES_MAX
    }

    fn stats(&self) -> &Stats {
        self.hub.stats()
    }

    /// Adds to the counters of the hub what came since.
    fn count(&mut self) {
        let read = |gauge: &std::sync::atomic::AtomicU64| gauge.load(Ordering::Relaxed);
        let (bytes, skipped) = (read(&self.shared.bytes), read(&self.shared.skipped));
        let (stats, word) = (self.stats(), self.muxer.word());
        stats.add("egress_bytes_total", word, bytes - self.counted.0);
        stats.add("frames_skipped_total", word, skipped - self.counted.1);
        self.counted = (bytes, skipped);
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.count();
        let (reason, (bytes, skipped)) = (self.reason(), self.counted);
        let output = self.muxer.word();
        info!(reason, bytes, skipped, output, "viewer left");
        self.shared.gone.cancel();
    }
}

fn dts_of(lane: Option<&mut Lane>) -> Option<MediaTime> {
    lane?.peek().map(|next| next.frame.dts)
}

const fn after(t: MediaTime) -> Start {
    Start::At(t.shifted(1))
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
