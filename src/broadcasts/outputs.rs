//! What is made of a live broadcast: its converters and its LL-HLS package.
//!
//! Invariant: a broadcast that ended is served as LL-HLS for [`STAYS`] more, then forgotten; going
//! live afresh changes nothing about that. Of one room there are at most [`PACKAGES_MAX`] packages,
//! the oldest leaves.

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

/// Packages of one room at a time: the live one, and those that ended a moment ago.
const PACKAGES_MAX: usize = 8;

/// The LL-HLS packages of each room, the newest last.
#[derive(Debug, Default)]
struct Outputs {
    packages: DashMap<String, Vec<Arc<Stream>>>,
    held: Held,
}

impl Outputs {
    fn of(app: &App) -> Arc<Self> {
        app.parts.part()
    }
}

/// The newest LL-HLS package of a room that is live, or was a moment ago.
pub(super) fn newest(app: &App, room: &str) -> Option<Arc<Stream>> {
    let outputs = Outputs::of(app);
    let packages = outputs.packages.get(room)?;
    packages.last().map(Arc::clone)
}

/// The LL-HLS package whose instance stands in a media name; the newest if none has it.
pub(super) fn holding(app: &App, room: &str, name: &str) -> Option<Arc<Stream>> {
    let outputs = Outputs::of(app);
    let packages = outputs.packages.get(room)?;
    let is_its = |stream: &&Arc<Stream>| {
        let rest = name.strip_prefix(stream.instance());
        rest.is_some_and(|rest| rest.starts_with('-'))
    };
    let found = packages.iter().find(is_its);
    found.or_else(|| packages.last()).map(Arc::clone)
}

/// Requests for LL-HLS that wait, and bytes that can be fetched, over all rooms.
pub(super) fn held_and_bytes(app: &App) -> (usize, usize) {
    let outputs = Outputs::of(app);
    let status = |packages: &Vec<Arc<Stream>>| -> usize {
        let all = packages.iter().filter_map(|stream| stream.status());
        all.map(|status| status.bytes).sum()
    };
    let bytes = outputs
        .packages
        .iter()
        .map(|packages| status(&packages))
        .sum();
    (outputs.held.count(), bytes)
}

/// Starts the outputs of a broadcast that has just begun.
pub(super) fn start(app: &App, broadcast: &Arc<Broadcast>) {
    let outputs = Outputs::of(app);
    let config = app.config();
    let hls = &config.hls;
    let config = HlsConfig {
        target_duration: hls.target_duration,
        segment_target: hls.segment_target,
        part_target: hls.part_target,
        window: hls.window,
        gap_after: hls.gap_after,
    };
    let stream = Stream::new(broadcast.instance(), config, outputs.held.clone());
    let room = broadcast.key().as_str().to_owned();
    let mut packages = outputs.packages.entry(room).or_default();
    if packages.len() >= PACKAGES_MAX {
        packages.remove(0);
    }
    packages.push(Arc::clone(&stream));
    drop(packages);
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
    let config = app.config();
    let convert = &config.convert;
    Arc::new(ConvertConfig {
        encoder: convert.encoder.clone(),
        encoder_fallback: vec![convert.encoder_fallback.clone()],
        gop: convert.gop,
        linger: convert.linger,
        clean_height_max: convert.clean_height_max,
    })
}

/// Forgets the outputs of a broadcast that ended, after a while; at once if there never were any.
pub(super) fn forget_later(app: &App, broadcast: &Broadcast) {
    let outputs = Outputs::of(app);
    let room = broadcast.key().as_str().to_owned();
    let instance = broadcast.instance().to_owned();
    let had_media = broadcast.had_media();
    app.tasks.spawn_until_stop("hls.forget", async move {
        if had_media {
            sleep(STAYS).await;
        }
        if let Some(mut packages) = outputs.packages.get_mut(&room) {
            packages.retain(|stream| stream.instance() != instance);
        }
        outputs
            .packages
            .remove_if(&room, |_, packages| packages.is_empty());
    });
}
