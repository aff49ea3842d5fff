//! What is made of a live broadcast: its converters and its LL-HLS package.
//!
//! Invariant: a broadcast that ended is served as LL-HLS for [`STAYS`] more, then forgotten.

use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use lamplight_media::broadcast::Broadcast;
use lamplight_media::hls::{Held, HlsConfig, Packager, Stream};
use lamplight_media::transcode::{self, ConvertConfig};
use tokio::time::sleep;

use crate::app::App;

/// How long playlists and segments outlive the broadcast (media.md 6.6).
const STAYS: Duration = Duration::from_secs(60);

/// The LL-HLS package of each room.
#[derive(Debug, Default)]
struct Outputs {
    streams: DashMap<String, Arc<Stream>>,
    held: Held,
}

impl Outputs {
    fn of(app: &App) -> Arc<Self> {
        app.parts.part()
    }
}

/// The LL-HLS package of a room that is live, or was a moment ago.
pub(super) fn stream(app: &App, room: &str) -> Option<Arc<Stream>> {
    Outputs::of(app).streams.get(room).map(|s| Arc::clone(&s))
}

/// Starts the outputs of a broadcast that has just begun.
pub(super) fn start(app: &App, broadcast: &Arc<Broadcast>) {
    let outputs = Outputs::of(app);
    let hls = &app.config.hls;
    let config = HlsConfig {
        target_duration: hls.target_duration,
        segment_target: hls.segment_target,
        part_target: hls.part_target,
        window: hls.window,
        gap_after: hls.gap_after,
    };
    let stream = Stream::new(broadcast.instance(), config, outputs.held.clone());
    let room = broadcast.key().as_str().to_owned();
    outputs.streams.insert(room, Arc::clone(&stream));
    let packager = Packager::new(Arc::clone(broadcast), stream);
    let run = packager.run(app.tasks.cancel_token());
    app.tasks.spawn("hls.packager", run);
    let convert = transcode::run(
        Arc::clone(broadcast),
        convert_config(app),
        app.tasks.cancel_token(),
    );
    app.tasks.spawn("transcode", convert);
}

fn convert_config(app: &App) -> Arc<ConvertConfig> {
    let convert = &app.config.convert;
    Arc::new(ConvertConfig {
        encoder: convert.encoder.clone(),
        encoder_fallback: vec![convert.encoder_fallback.clone()],
        gop: convert.gop,
        linger: convert.linger,
        clean_height_max: convert.clean_height_max,
    })
}

/// Forgets the outputs of a broadcast that ended, after a while.
pub(super) fn forget_later(app: &App, broadcast: &Broadcast) {
    let outputs = Outputs::of(app);
    let room = broadcast.key().as_str().to_owned();
    let instance = broadcast.instance().to_owned();
    app.tasks.spawn_until_stop("hls.forget", async move {
        sleep(STAYS).await;
        outputs
            .streams
            .remove_if(&room, |_, stream| stream.instance() == instance);
    });
}
