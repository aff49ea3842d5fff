//! What runs now (media.md 8.2): broadcasts, their sessions, and ending one of them.
//!
//! Invariant: looking costs the media path nothing: counters are atomics, reports are replaced
//! whole.
//!
//! Not here: cues, keys, who may watch.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use lamplight_media::broadcast::{
    Broadcast, BroadcastKey, EndReason, OutputCounts, PublishReport, TrackReport,
};
use lamplight_media::doctor;
use lamplight_media::frame::{Codec, Kind, TrackInfo};
use lamplight_media::time::MediaTime;
use lamplight_media::whep::Measured;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::Instant;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::recording::{self, Standing};
use super::signal::Sessions;
use super::{flv, outputs, store};
use crate::accounts::{Entry, Principal, Scope, audit};
use crate::app::App;
use crate::clock::Timestamp;
use crate::http::{
    ApiError, Call, Code, Cursor, NoBody, Page, Path, Problem, Query, Seek, Write, limit,
};
use crate::ids::RoomId;

const TRY_AGAIN: Duration = Duration::from_secs(2);
/// A made track whose newest frame is farther behind the source is not made now.
const RUNNING_LAG_MAX: Duration = Duration::from_secs(3);

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(one))
        .routes(routes!(session))
        .routes(routes!(kick))
}

/// Where a broadcast is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
enum BroadcastState {
    /// A publisher is let in and has not sent yet
    Starting,
    Live,
    /// The publisher is gone and awaited
    Awaiting,
}

/// The viewers of one output.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct OutputView {
    now: u64,
    /// The most at once
    peak: u64,
    /// Seconds watched, over all viewers
    viewer_seconds: u64,
}

/// The viewers of a broadcast.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct ViewersView {
    whep: OutputView,
    hls: OutputView,
    flv: OutputView,
    rtmp: OutputView,
    /// Persons, however many outputs they use
    unique: u64,
}

/// What is wrong with a stream, and the setting that mends it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct VerdictView {
    code: &'static str,
    /// `info`, `warning` or `error`
    severity: &'static str,
    /// Microseconds on the timeline
    since_us: i64,
    /// What was measured last
    value: Option<f64>,
    /// Of the value
    unit: Option<&'static str>,
    /// What to do, in the words of OBS
    sentence: String,
}

/// The publish session that is there.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct PublishView {
    /// For `DELETE /media/sessions/{id}`
    session_id: String,
    /// `rtmp` or `whip`; null for a publisher inside the process
    protocol: Option<&'static str>,
    /// In the encoder's own words
    encoder: Option<String>,
    #[schema(value_type = String, format = DateTime)]
    since: Timestamp,
    bitrate_bps: u64,
    fps: Option<f64>,
    gop_ms: Option<u64>,
    width: Option<u32>,
    height: Option<u32>,
    video_codec: Option<&'static str>,
    audio_codec: Option<&'static str>,
    audio_rate_hz: Option<u32>,
    /// How much faster its clock runs than ours, in millionths; known after some minutes
    drift_ppm: Option<f64>,
    /// Where the protocol tells
    rtt_ms: Option<f64>,
    /// Thousandths lost for good, where the protocol tells
    loss_per_mille: Option<u64>,
    verdicts: Vec<VerdictView>,
}

/// A track that is sent to somebody.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct RenditionView {
    /// `video`, `audio`, `clean`, `opus`, `aac`, or a rung such as `v480`
    name: String,
    is_running: bool,
    /// Sessions and packagers that read it
    users: usize,
    bitrate_bps: u64,
    /// Behind the publisher's track
    lag_ms: Option<u64>,
    /// FFmpeg's name of the encoder that makes it now
    encoder: Option<&'static str>,
    /// Why it cannot be had: `overload`, `encoders_max`, `no_encoder`, `no_decoder`,
    /// `converter_failed`, `no_thread`
    unavailable: Option<&'static str>,
}

/// The LL-HLS package.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct HlsView {
    /// Media sequence number of the newest segment
    msn: u64,
    /// The newest part in it, from 0
    part: usize,
    window_ms: u64,
    window_bytes: usize,
    /// Requests that wait
    held: usize,
}

/// The recording that runs.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct RecordingView {
    /// Its name in `/vod/{recording}`, where it can be played once it is over
    id: String,
    /// Segments that are kept
    segments: u64,
    bytes: u64,
    /// Segments that wait for the store
    waiting: usize,
    /// Segments that the store did not take, or not in time: gaps of the recording
    lost: u64,
}

/// A broadcast in a list.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct BroadcastSummary {
    room: String,
    state: BroadcastState,
    instance: String,
    protocol: Option<&'static str>,
    bitrate_bps: u64,
    viewers_unique: u64,
    /// Codes of what is wrong, the worst first
    verdicts: Vec<&'static str>,
}

/// A broadcast, whole.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct BroadcastView {
    room: String,
    state: BroadcastState,
    /// New each time the room goes live afresh
    instance: String,
    /// Wall time of the timeline's zero
    #[schema(value_type = String, format = DateTime)]
    epoch: Timestamp,
    /// The timeline's now, in microseconds
    t_us: i64,
    publish: Option<PublishView>,
    renditions: Vec<RenditionView>,
    viewers: ViewersView,
    hls: Option<HlsView>,
    /// Null when it is not recorded
    recording: Option<RecordingView>,
}

/// One session.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct SessionView {
    id: String,
    /// `whep`, `hls`, `flv` or `rtmp` for a viewer; `rtmp` or `whip` for a publisher
    protocol: Option<&'static str>,
    room: String,
    #[schema(value_type = String, format = DateTime)]
    since: Timestamp,
    /// The points of the timeline between which the viewer can be, in microseconds
    #[serde(skip_serializing_if = "Option::is_none")]
    playhead_us: Option<[i64; 2]>,
    /// A viewer's numbers, over all but LL-HLS; what only WebRTC knows is zero over the others
    #[serde(skip_serializing_if = "Option::is_none")]
    viewer: Option<ViewerView>,
    /// A publisher's
    #[serde(skip_serializing_if = "Option::is_none")]
    publish: Option<PublishView>,
}

/// What is measured of a viewer's session, at most a second ago.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct ViewerView {
    /// `src` or a rung; null before the first picture and while there is only sound
    rendition: Option<String>,
    bytes: u64,
    packets: u64,
    frames: u64,
    skipped: u64,
    nacks: u64,
    retransmits: u64,
    rtt_ms: Option<f64>,
    loss_per_mille: u64,
    estimate_bps: u64,
    pacer_ms: u64,
    switches: u64,
    first_frame_ms: Option<u64>,
    lag_ms: u64,
}

/// Which part of the list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    limit: Option<u32>,
    after: Option<String>,
    before: Option<String>,
}

/// Lists the broadcasts of this node, by room.
#[utoipa::path(get, path = "/media/broadcasts", tag = "media",
    params(("limit" = Option<u32>, Query), ("after" = Option<String>, Query),
        ("before" = Option<String>, Query)),
    security(("bearer" = [])),
    responses((status = 200, body = Page<BroadcastSummary>), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
#[tracing::instrument(name = "broadcasts.list", skip_all)]
async fn list(
    State(app): State<App>,
    who: Principal,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<BroadcastSummary>>, ApiError> {
    who.require(Scope::MediaManage)?;
    let size = limit(query.limit)?;
    let cursor = Cursor::of(&app.secrets, "broadcasts");
    let seek = cursor.seek::<String>(query.after.as_deref(), query.before.as_deref())?;
    let mut all = app.media.list();
    all.sort_by(|a, b| a.key().as_str().cmp(b.key().as_str()));
    let is_beyond = |broadcast: &Arc<Broadcast>| match &seek {
        Seek::First => true,
        Seek::After(key) => broadcast.key().as_str() > key.as_str(),
        Seek::Before(key) => broadcast.key().as_str() < key.as_str(),
    };
    all.retain(is_beyond);
    if matches!(seek, Seek::Before(_)) {
        all.reverse();
    }
    let one_more = usize::try_from(size)
        .unwrap_or(usize::MAX)
        .saturating_add(1);
    let rows = all.iter().take(one_more).map(|b| summary(b)).collect();
    Ok(Json(cursor.page(rows, size, &seek, |row| row.room.clone())))
}

/// Shows the broadcast of a room.
#[utoipa::path(get, path = "/media/broadcasts/{room}", tag = "media",
    params(("room" = String, Path)), security(("bearer" = [])),
    responses((status = 200, body = BroadcastView), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
#[tracing::instrument(name = "broadcasts.show", skip_all, fields(room.id = %room))]
async fn one(
    State(app): State<App>,
    who: Principal,
    Path(room): Path<RoomId>,
) -> Result<Json<BroadcastView>, ApiError> {
    who.require(Scope::MediaManage)?;
    let name = room.to_string();
    let live = app.media.find(&BroadcastKey::new(&name));
    match live {
        Some(broadcast) => Ok(Json(whole(&app, &broadcast))),
        None if store::has_access(&app.db, room).await? => Err(not_live()),
        None => Err(ApiError::not_found()),
    }
}

fn not_live() -> ApiError {
    ApiError::new(Code::MediaNotLive, "nobody publishes into this room now").after(TRY_AGAIN)
}

/// Shows a session: a viewer's, or a publisher's. One of LL-HLS is named by the `s` of its
/// playlists.
#[utoipa::path(get, path = "/media/sessions/{id}", tag = "media",
    params(("id" = String, Path)), security(("bearer" = [])),
    responses((status = 200, body = SessionView), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
#[tracing::instrument(name = "broadcasts.session", skip_all)]
async fn session(
    State(app): State<App>,
    who: Principal,
    Path(id): Path<String>,
) -> Result<Json<SessionView>, ApiError> {
    who.require(Scope::MediaManage)?;
    let sessions = Sessions::of(&app);
    if let Some(viewer) = sessions.viewers.get(&id) {
        let measured = viewer.control.measured();
        return Ok(Json(SessionView {
            id,
            protocol: Some("whep"),
            room: viewer.room.clone(),
            since: viewer.since,
            playhead_us: viewer.control.playhead().map(span),
            viewer: Some(measured.into()),
            publish: None,
        }));
    }
    if let Some(viewer) = flv::Sessions::of(&app).viewers.get(&id) {
        return Ok(Json(SessionView {
            id,
            protocol: Some(viewer.protocol),
            room: viewer.room.clone(),
            since: viewer.since,
            playhead_us: viewer.control.playhead().map(span),
            viewer: Some(viewer.control.measured().into()),
            publish: None,
        }));
    }
    if let Some(view) = playlists_of(&app, &id) {
        return Ok(Json(view));
    }
    let (broadcast, report) = publishing(&app, &id).ok_or_else(ApiError::not_found)?;
    let publish = published(&broadcast, &report);
    Ok(Json(SessionView {
        id,
        protocol: publish.protocol,
        room: broadcast.key().to_string(),
        since: publish.since,
        playhead_us: None,
        viewer: None,
        publish: Some(publish),
    }))
}

fn span((from, to): (MediaTime, MediaTime)) -> [i64; 2] {
    [from.as_micros(), to.as_micros()]
}

/// A session of LL-HLS, which is its playlists.
fn playlists_of(app: &App, id: &str) -> Option<SessionView> {
    let found = |broadcast: Arc<Broadcast>| {
        let session = broadcast.audience().session(id)?;
        Some((broadcast, session))
    };
    let (broadcast, (began, listed)) = app.media.list().into_iter().find_map(found)?;
    let lasts = Instant::now().saturating_duration_since(began);
    Some(SessionView {
        id: id.to_owned(),
        protocol: Some("hls"),
        room: broadcast.key().to_string(),
        since: app.clock.now().before(lasts),
        playhead_us: listed.map(span),
        viewer: None,
        publish: None,
    })
}

/// Ends a session: a viewer's, or a publisher's with its broadcast.
#[utoipa::path(delete, path = "/media/sessions/{id}", tag = "media",
    params(("id" = String, Path)), security(("bearer" = [])),
    responses((status = 204), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
#[tracing::instrument(name = "broadcasts.kick", skip_all)]
async fn kick(
    State(app): State<App>,
    who: Principal,
    Path(id): Path<String>,
    Write {
        body: NoBody {},
        call,
    }: Write<NoBody>,
) -> Result<StatusCode, ApiError> {
    who.require(Scope::MediaManage)?;
    let room = cut(&app, &id).ok_or_else(ApiError::not_found)?;
    record(&app, &who, &call, room).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Ends the session of this id; its room.
fn cut(app: &App, id: &str) -> Option<String> {
    let sessions = Sessions::of(app);
    if let Some((_, viewer)) = sessions.viewers.remove(id) {
        viewer.control.end(Instant::now(), "kicked");
        return Some(viewer.room);
    }
    if let Some((_, viewer)) = flv::Sessions::of(app).viewers.remove(id) {
        viewer.control.end("kicked");
        return Some(viewer.room);
    }
    let (broadcast, _) = publishing(app, id)?;
    broadcast.end(EndReason::Server);
    Some(broadcast.key().to_string())
}

async fn record(app: &App, who: &Principal, call: &Call, room: String) -> Result<(), ApiError> {
    let entry = Entry {
        who,
        call,
        object_id: room,
        // The id of a viewer's session is the right to change it: it is not kept.
        diff: json!({ "session": "ended" }),
    };
    let mut tx = app.db.begin().await?;
    audit(&mut tx, app.clock.now(), entry).await?;
    Ok(tx.commit().await?)
}

/// The broadcast whose publisher has this session.
fn publishing(app: &App, id: &str) -> Option<(Arc<Broadcast>, Arc<PublishReport>)> {
    app.media.list().into_iter().find_map(|broadcast| {
        let report = broadcast
            .publish_report()
            .filter(|report| *report.id == *id)?;
        Some((broadcast, report))
    })
}

fn state(broadcast: &Broadcast) -> BroadcastState {
    if !broadcast.has_publisher() {
        BroadcastState::Awaiting
    } else if broadcast.had_media() {
        BroadcastState::Live
    } else {
        BroadcastState::Starting
    }
}

fn summary(broadcast: &Broadcast) -> BroadcastSummary {
    let report = broadcast.publish_report();
    let report = report.as_deref();
    let verdicts = report.map_or(&[][..], |report| &report.verdicts);
    BroadcastSummary {
        room: broadcast.key().to_string(),
        state: state(broadcast),
        instance: broadcast.instance().into(),
        protocol: report.and_then(|report| report.protocol).map(|p| p.word()),
        bitrate_bps: report.map_or(0, |report| report.bitrate_bps),
        viewers_unique: broadcast.audience().counts(Instant::now()).unique,
        verdicts: verdicts.iter().map(|verdict| verdict.code.word()).collect(),
    }
}

fn whole(app: &App, broadcast: &Broadcast) -> BroadcastView {
    let now = Instant::now();
    let report = broadcast.publish_report();
    let counts = broadcast.audience().counts(now);
    let room = broadcast.key().to_string();
    let stream = outputs::newest(app, &room);
    let stream = stream.filter(|stream| stream.instance() == broadcast.instance());
    let hls = stream.and_then(|stream| stream.status());
    BroadcastView {
        state: state(broadcast),
        instance: broadcast.instance().into(),
        epoch: broadcast.wall(MediaTime::ZERO).into(),
        t_us: broadcast.now_t(now).as_micros(),
        publish: report.map(|report| published(broadcast, &report)),
        renditions: broadcast.tracks().into_iter().map(Into::into).collect(),
        viewers: ViewersView {
            whep: counts.whep.into(),
            hls: counts.hls.into(),
            flv: counts.flv.into(),
            rtmp: counts.rtmp.into(),
            unique: counts.unique,
        },
        hls: hls.map(|status| HlsView {
            msn: status.msn,
            part: status.part,
            window_ms: millis(status.listed),
            window_bytes: status.bytes,
            held: status.waiting,
        }),
        recording: recording::standing(app, broadcast).map(Into::into),
        room,
    }
}

fn published(broadcast: &Broadcast, report: &PublishReport) -> PublishView {
    let (picture, sound) = (broadcast.source(Kind::Video), broadcast.source(Kind::Audio));
    let size = picture.as_deref().and_then(TrackInfo::picture_size);
    PublishView {
        session_id: report.id.to_string(),
        protocol: report.protocol.map(|protocol| protocol.word()),
        encoder: report.encoder.as_deref().map(Into::into),
        since: report.since.into(),
        bitrate_bps: report.bitrate_bps,
        fps: report.frame_rate.map(|rate| rounded(rate, 100.0)),
        gop_ms: report.gop.map(millis),
        width: size.map(|(width, _)| width),
        height: size.map(|(_, height)| height),
        video_codec: picture.map(|info| codec(info.codec)),
        audio_codec: sound.as_ref().map(|info| codec(info.codec)),
        audio_rate_hz: sound.and_then(|info| info.audio_rate()),
        drift_ppm: report.drift_ppm.map(|ppm| rounded(ppm, 1.0)),
        rtt_ms: None,
        loss_per_mille: report.loss_per_mille,
        verdicts: report.verdicts.iter().map(Into::into).collect(),
    }
}

const fn codec(codec: Codec) -> &'static str {
    match codec {
        Codec::H264 => "h264",
        Codec::Hevc => "hevc",
        Codec::Av1 => "av1",
        Codec::Aac => "aac",
        Codec::Opus => "opus",
    }
}

fn rounded(value: f64, steps: f64) -> f64 {
    (value * steps).round() / steps
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl From<OutputCounts> for OutputView {
    fn from(counts: OutputCounts) -> Self {
        Self {
            now: counts.viewers,
            peak: counts.peak,
            viewer_seconds: counts.viewer_seconds,
        }
    }
}

impl From<Standing> for RecordingView {
    fn from(standing: Standing) -> Self {
        Self {
            id: standing.name,
            segments: standing.segments,
            bytes: standing.bytes,
            waiting: standing.waiting,
            lost: standing.lost,
        }
    }
}

impl From<&doctor::Verdict> for VerdictView {
    fn from(verdict: &doctor::Verdict) -> Self {
        Self {
            code: verdict.code.word(),
            severity: verdict.code.severity().word(),
            since_us: verdict.since.as_micros(),
            value: verdict.value.map(|value| rounded(value, 100.0)),
            unit: verdict.code.unit(),
            sentence: verdict.sentence.clone(),
        }
    }
}

impl From<TrackReport> for RenditionView {
    fn from(report: TrackReport) -> Self {
        Self {
            name: report.track.to_string(),
            is_running: report.lag.is_some_and(|lag| lag < RUNNING_LAG_MAX),
            users: report.users,
            bitrate_bps: report.bitrate_bps,
            lag_ms: report.lag.map(millis),
            encoder: report.encoder,
            unavailable: report.unavailable,
        }
    }
}

impl From<Measured> for ViewerView {
    fn from(measured: Measured) -> Self {
        Self {
            rendition: measured.rendition.map(|rendition| rendition.to_string()),
            bytes: measured.bytes,
            packets: measured.packets,
            frames: measured.frames,
            skipped: measured.skipped,
            nacks: measured.nacks,
            retransmits: measured.retransmitted,
            rtt_ms: measured
                .round_trip
                .map(|trip| rounded(trip.as_secs_f64() * 1e3, 10.0)),
            loss_per_mille: measured.loss_per_mille,
            estimate_bps: measured.estimate_bps,
            pacer_ms: millis(measured.pacer),
            switches: measured.switches,
            first_frame_ms: measured.first_frame.map(millis),
            lag_ms: millis(measured.lag),
        }
    }
}
