//! What is made of a live broadcast: its converters and its LL-HLS package.
//!
//! Invariant: a broadcast that ended is served as LL-HLS for [`STAYS`] more, then forgotten; going
//! live afresh changes nothing about that. Of one room there are at most [`PACKAGES_MAX`] packages,
//! the oldest leaves.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dashmap::DashMap;
use lamplight_media::broadcast::Broadcast;
use lamplight_media::hls::{Held, HlsConfig, Packager, Stream};
use lamplight_media::transcode::ladder::{Ladder, Rung};
use lamplight_media::transcode::{self, ConvertConfig, choice};
use tokio::time::sleep;
use tracing::{error, info};

use super::recording;
use crate::app::App;
use crate::config;

/// How long playlists and segments outlive the broadcast (media.md 6.6).
const STAYS: Duration = Duration::from_secs(60);

/// Packages of one room at a time: the live one, and those that ended a moment ago.
const PACKAGES_MAX: usize = 8;

/// The LL-HLS packages of each room, the newest last.
#[derive(Debug, Default)]
struct Outputs {
    packages: DashMap<String, Vec<Arc<Stream>>>,
    held: Held,
    /// The encoder of pictures that was told of last.
    encoder: Mutex<Option<String>>,
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
    let dvr = if config.record.enabled {
        hls.dvr
    } else {
        Duration::ZERO
    };
    let config = HlsConfig {
        target_duration: hls.target_duration,
        segment_target: hls.segment_target,
        part_target: hls.part_target,
        window: hls.window,
        dvr,
        gap_after: hls.gap_after,
        has_rungs: true,
        has_silent_audio: hls.silent_audio,
    };
    let stream = Stream::new(broadcast.instance(), config, outputs.held.clone());
    let room = broadcast.key().as_str().to_owned();
    let mut packages = outputs.packages.entry(room).or_default();
    if packages.len() >= PACKAGES_MAX {
        packages.remove(0);
    }
    packages.push(Arc::clone(&stream));
    drop(packages);
    broadcast.set_ladder(Arc::new(ladder(&app.config().ladder)));
    let mut packager = Packager::new(Arc::clone(broadcast), Arc::clone(&stream));
    let lose = move |rendition, msn| stream.lose(rendition, msn);
    if let Some(recorder) = recording::start(app, broadcast, lose) {
        packager = packager.recorded(recorder);
    }
    let run = packager.run(app.tasks.cancel_token());
    app.tasks.spawn("hls.packager", run);
    let convert = transcode::run(
        Arc::clone(broadcast),
        convert_config(app),
        app.tasks.cancel_token(),
    );
    let (cancel, tried) = (app.tasks.cancel_token(), try_encoders(app.clone()));
    app.tasks.spawn("transcode", async move {
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tried => {}
        }
        convert.await;
    });
}

/// Tries the encoders before anybody needs one; those that do not work are logged. Not before the
/// first broadcast: a node at rest would keep what the trial takes of memory.
async fn try_encoders(app: App) {
    let config = app.config();
    let tried = tokio::task::spawn_blocking(move || {
        let used = choice::first_that_works(config.convert.encoders());
        used.map_or_else(String::new, str::to_owned)
    });
    // A panic in there says so itself.
    let Ok(encoder) = tried.await else { return };
    let outputs = Outputs::of(&app);
    let told = outputs.encoder.lock();
    let told = told
        .unwrap_or_else(PoisonError::into_inner)
        .replace(encoder.clone());
    if told.as_ref() == Some(&encoder) {
        return;
    }
    if encoder.is_empty() {
        error!("no encoder of H.264 works: viewers who need one get no picture");
    } else {
        info!(encoder, "pictures are encoded with this");
    }
}

/// The ladder that broadcasts have which start now.
fn ladder(rungs: &[config::Rung]) -> Ladder {
    let rungs = rungs.iter().map(|rung| Rung {
        lines: rung.lines,
        source_lines_min: rung.source_lines_min,
        source_lines_max: match rung.source_lines_max {
            0 => u32::MAX,
            lines => lines,
        },
        rate_bps: rung.bitrate_bps,
        audio_bps: rung.audio_bps,
        fps_max: Some(rung.fps_max).filter(|fps| *fps > 0),
    });
    Ladder::new(rungs.collect())
}

fn convert_config(app: &App) -> Arc<ConvertConfig> {
    let config = app.config();
    let convert = &config.convert;
    Arc::new(ConvertConfig {
        encoder: convert.encoder.clone(),
        encoder_fallback: convert.encoder_fallback.clone(),
        gop: convert.gop,
        linger: convert.linger,
        clean_height_max: convert.clean_height_max,
        has_silent_audio: config.hls.silent_audio,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Sources};

    #[test]
    fn the_documented_ladder_is_the_one_of_the_media_core() {
        let config = Config::load(&Sources::default()).unwrap();
        assert_eq!(ladder(&config.ladder), Ladder::default());
    }
}
