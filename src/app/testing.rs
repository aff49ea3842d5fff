//! An app without listeners, over a fresh database: what a store or use case needs.

use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use lamplight_media::broadcast::{BroadcastKey, Broadcasts, Limits, Publisher};
use lamplight_media::cue::CueNews;
use lamplight_media::frame::{Codec, Kind, Sample, Shape, TrackInfo};
use lamplight_media::time::SourceTime;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{App, Handles, Parts, Phase, Secrets};
use crate::clock::Clock;
use crate::config::{Config, Current, Sources};
use crate::db::{Db, Folder, NOON, fresh};
use crate::events::Bus;
use crate::tasks::Tasks;

/// Everything but listeners and jobs; its clock stands at [`NOON`].
#[derive(Debug)]
pub(crate) struct Fixture {
    pub(crate) app: App,
    _folder: Folder,
}

impl Fixture {
    pub(crate) async fn new() -> Self {
        Self::with(&[]).await
    }

    /// With these `section.key=value` in place of the defaults.
    pub(crate) async fn with(settings: &[&str]) -> Self {
        let folder = Folder::new();
        let sources = Sources {
            settings: settings.iter().map(|&setting| setting.into()).collect(),
            ..Sources::default()
        };
        let config = Config::load(&sources).unwrap();
        let app = App::new(Handles {
            current: Current::new(config),
            clock: Clock::standing_at(NOON),
            db: fresh(&folder).await,
            bus: Bus::default(),
            tasks: Tasks::new(),
            media: Broadcasts::new(Limits::default()),
            secrets: Secrets::open(folder.path()).unwrap(),
            phase: watch::Sender::new(Phase::Running),
            bound: OnceLock::new(),
            parts: Parts::default(),
        });
        Self {
            app,
            _folder: folder,
        }
    }

    pub(crate) fn db(&self) -> &Db {
        &self.app.db
    }

    /// A publisher of this broadcast whose first frame, silence, is in.
    pub(crate) fn publish(&self, broadcast: &str, now: Instant) -> Publisher {
        let wall = self.app.clock.now().to_datetime();
        let key = BroadcastKey::new(broadcast);
        let mut publisher = self.app.media.open(key, now, wall).unwrap();
        begin(&mut publisher, now);
        publisher
    }

    /// The id and payload of the next cue that `act` puts on this broadcast.
    pub(crate) async fn passing_cue<F: Future>(
        &self,
        broadcast: &str,
        act: impl FnOnce() -> F,
    ) -> (String, String) {
        let broadcast = self.app.media.find(&BroadcastKey::new(broadcast)).unwrap();
        let mut cues = broadcast.cues();
        act().await;
        let CueNews::Opened(cue) = cues.next().await.unwrap() else {
            panic!("a cue was closed");
        };
        let text = String::from_utf8(cue.payload.to_vec()).unwrap();
        (cue.id.clone(), text)
    }
}

/// Sends the first frame of a publisher: silence.
pub(crate) fn begin(publisher: &mut Publisher, now: Instant) {
    let info = TrackInfo {
        codec: Codec::Aac,
        generation: 0,
        shape: Shape::Audio {
            rate: 48_000,
            channels: 2,
        },
        config: Bytes::from_static(&[0x11, 0x90]),
        reorder_frames: None,
    };
    publisher.set_track(now, info).unwrap();
    let silence = Sample {
        kind: Kind::Audio,
        dts: SourceTime::from_millis(0),
        composition: Duration::ZERO,
        samples: 1_024,
        is_key: true,
        is_discardable: false,
        payload: Bytes::from_static(&[0; 8]),
    };
    publisher.write(now, silence).unwrap();
}
