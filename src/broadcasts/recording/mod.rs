//! Recordings (media.md 6.7): which run, where their objects go, what became of them at the last
//! stop, and how they are played.
//!
//! Invariants
//! - Live never waits for the store: a recording takes from a queue that drops (I33).
//! - A recording that was begun has an end: written when the broadcast is over, or at the next
//!   start. Until then a marker names it.
//!
//! Not here: what is recorded, and the text of a replay (media core).

mod clip;
mod keeper;
mod owner;
mod replay;
#[cfg(feature = "s3")]
mod s3;
mod store;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use dashmap::DashMap;
use lamplight_media::broadcast::Broadcast;
use lamplight_media::hls::{Media, RenditionId};
use lamplight_media::record::{self, Index, Recorder, Status};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use self::clip::Clips;
pub(super) use self::clip::clip;
use self::keeper::Keeper;
use self::owner::Owner;
pub(crate) use self::replay::stretches;
pub(super) use self::replay::{file, multivariant};
#[cfg(feature = "s3")]
use self::s3::{ProbeError, S3Error};
use self::store::{Directory, Store, StoreError};
use crate::app::App;
#[cfg(feature = "s3")]
use crate::config::S3Store;

/// Where recordings are kept under the data directory, unless it is set.
const FOLDER: &str = "recordings";
/// Markers of recordings without an end.
const UNFINISHED: &str = "unfinished/";
/// Indices of recordings that are played now, kept in memory.
const INDICES_MAX: usize = 16;
const IS_DONE_EVERY: Duration = Duration::from_millis(10);
/// How often it is looked whether recordings were left behind.
const RECOVER_EVERY: Duration = Duration::from_secs(300);

/// What this module remembers.
#[derive(Debug, Default)]
struct Recordings {
    store: OnceLock<Arc<Store>>,
    owner: OnceLock<Owner>,
    /// Those that run, by name.
    live: DashMap<String, Arc<Live>>,
    /// The least used first.
    indices: Mutex<Vec<(String, Arc<Index>)>>,
    clips: Clips,
}

/// A recording that runs.
struct Live {
    gauge: Box<dyn Fn() -> Status + Send + Sync>,
    /// Tells whoever lists it that a segment is not in the store.
    lose: Box<dyn Fn(RenditionId, u64) + Send + Sync>,
    segments: AtomicU64,
    bytes: AtomicU64,
    /// Segments that the store did not take.
    failed: AtomicU64,
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").finish_non_exhaustive()
    }
}

/// How a recording stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) name: String,
    pub(super) segments: u64,
    pub(super) bytes: u64,
    pub(super) waiting: usize,
    pub(super) lost: u64,
}

impl Recordings {
    fn of(app: &App) -> Arc<Self> {
        app.parts.part()
    }

    fn store(&self, app: &App) -> Arc<Store> {
        let config = app.config();
        let open = || {
            let set = config.record.dir.clone();
            let dir = set.unwrap_or_else(|| config.data_dir.join(FOLDER));
            Arc::new(Store::Directory(Directory::new(dir)))
        };
        Arc::clone(self.store.get_or_init(open))
    }

    /// This node, as others are told of it. Without a file of its own it is another at each start:
    /// what it leaves is ended by the others.
    fn owner(&self, app: &App) -> Owner {
        let open = || {
            let dir = &app.config().data_dir;
            Owner::of(dir, app.clock.clone()).unwrap_or_else(|err| {
                let error = &err as &dyn std::error::Error;
                warn!(error, "cannot read or write the name of this node");
                Owner::unnamed(app.clock.clone())
            })
        };
        self.owner.get_or_init(open).clone()
    }

    fn known_index(&self, name: &str) -> Option<Arc<Index>> {
        let mut indices = self.indices.lock().unwrap_or_else(PoisonError::into_inner);
        let at = indices.iter().position(|(known, _)| known == name)?;
        let known = indices.remove(at);
        let index = Arc::clone(&known.1);
        indices.push(known);
        Some(index)
    }

    fn remember_index(&self, name: &str, index: &Arc<Index>) {
        let mut indices = self.indices.lock().unwrap_or_else(PoisonError::into_inner);
        if indices.len() >= INDICES_MAX {
            indices.remove(0);
        }
        indices.push((name.to_owned(), Arc::clone(index)));
    }
}

/// Opens the store that the configuration names.
///
/// # Errors
/// [`S3Error`] says what to change.
#[cfg(feature = "s3")]
pub(crate) fn open_store(app: &App) -> Result<(), S3Error> {
    if let Some(s3) = &app.config().record.store {
        let store = Store::S3(s3::S3::open(s3)?);
        // The first one stays: there is one start.
        drop(Recordings::of(app).store.set(Arc::new(store)));
    }
    Ok(())
}

/// Tries the store that the configuration names.
///
/// # Errors
/// What to change, or what the store said.
#[cfg(feature = "s3")]
pub(crate) async fn probe_store(config: &S3Store) -> Result<(), ProbeError> {
    s3::probe(config).await
}

/// Begins to record a broadcast, if recording is on; the packager writes into what is given.
/// Each segment that the store does not take is told to `lose`.
pub(super) fn start(
    app: &App,
    broadcast: &Arc<Broadcast>,
    lose: impl Fn(RenditionId, u64) + Send + Sync + 'static,
) -> Option<Recorder> {
    if !app.config().record.enabled {
        return None;
    }
    let recordings = Recordings::of(app);
    let name = record::recording_name(broadcast.key().as_str(), broadcast.instance());
    let (recorder, backlog) = record::queue(&name);
    let live = Arc::new(Live {
        gauge: Box::new(backlog.gauge()),
        lose: Box::new(lose),
        segments: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
        failed: AtomicU64::new(0),
    });
    recordings.live.insert(name.clone(), Arc::clone(&live));
    let keepers = (&app.media, recordings.owner(app));
    let keeper = Keeper::new(recordings.store(app), &name, live, keepers);
    let (app, broadcast) = (app.clone(), Arc::clone(broadcast));
    app.tasks
        .clone()
        .spawn_until_stop("record.keep", async move {
            let is_kept = keeper.run(backlog).await;
            recordings.live.remove(&name);
            if is_kept {
                info!(broadcast.id = %broadcast.key(), recording.id = name, "recording is ready");
                app.media.recording_ready(&broadcast);
            }
        });
    Some(recorder)
}

/// How the recording of a broadcast stands; `None` when it is not recorded.
pub(super) fn standing(app: &App, broadcast: &Broadcast) -> Option<Standing> {
    let name = record::recording_name(broadcast.key().as_str(), broadcast.instance());
    let recordings = Recordings::of(app);
    let live = Arc::clone(&*recordings.live.get(&name)?);
    let queue = (live.gauge)();
    Some(Standing {
        name,
        segments: live.segments.load(Ordering::Relaxed),
        bytes: live.bytes.load(Ordering::Relaxed),
        waiting: queue.waiting,
        lost: queue.dropped + live.failed.load(Ordering::Relaxed),
    })
}

/// A segment or init section of a show that is on air, which the list of the DVR has. One that is
/// not there yet will be: busy.
pub(super) async fn kept(
    app: &App,
    (room, instance): (&str, &str),
    rendition: RenditionId,
    file: &str,
) -> Media {
    let name = record::recording_name(room, instance);
    let key = record::key(&name, rendition, file);
    let store = Recordings::of(app).store(app);
    let read: Result<Bytes, StoreError> = keeper::within(&key, store.get(&key, None)).await;
    match read {
        Ok(bytes) => Media::Found(bytes),
        Err(err) => {
            let error = &err as &dyn std::error::Error;
            warn!(
                error,
                recording.id = name,
                "the store has not what the DVR lists"
            );
            Media::Busy
        }
    }
}

/// Objects that wait for the store, over all recordings.
pub(super) fn waiting(app: &App) -> usize {
    let recordings = Recordings::of(app);
    let all = recordings.live.iter();
    all.map(|live| (live.gauge)().waiting).sum()
}

/// Waits until every recording has its end.
pub(crate) async fn recorded(app: &App) {
    let recordings = Recordings::of(app);
    while !recordings.live.is_empty() {
        sleep(IS_DONE_EVERY).await;
    }
}

/// Ends the recordings that the last stop cut off, so that they can be played; later also those of
/// other nodes that are gone. For the life of the server.
pub(crate) async fn recover(app: App) {
    loop {
        recover_once(&app).await;
        sleep(RECOVER_EVERY).await;
    }
}

async fn recover_once(app: &App) {
    let recordings = Recordings::of(app);
    let (store, owner) = (recordings.store(app), recordings.owner(app));
    let markers = match timeout(keeper::STORE_WITHIN, store.list(UNFINISHED)).await {
        Ok(Ok(markers)) => markers,
        Ok(Err(err)) => return failed(&err),
        Err(_elapsed) => return warn!("the store does not answer, old recordings wait"),
    };
    for marker in markers {
        let name = marker.strip_prefix(UNFINISHED).unwrap_or(&marker);
        if recordings.live.contains_key(name) {
            continue;
        }
        match keeper::within(&marker, store.get(&marker, None)).await {
            Ok(said) if owner.ends(&said) => {}
            // Another node keeps it, or has ended it.
            Ok(_) | Err(StoreError::NotFound(_)) => continue,
            Err(err) => return failed(&err),
        }
        if keeper::end(&store, name).await {
            info!(recording.id = name, "ended a recording that was cut off");
        }
    }
}

fn failed(err: &StoreError) {
    let error = err as &dyn std::error::Error;
    warn!(error, "cannot end the recordings that were cut off");
}
