//! The ways that are compared.

use std::fmt;
use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::unfold;
use lamplight_media::broadcast::{Broadcast, Broadcasts, Cursor, Start};
use lamplight_media::flv::viewer::{self, SLICES_MAX, Terms};
use lamplight_media::frame::{Frame, TrackId};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::tags;

const MERGE: Duration = Duration::from_millis(20);

/// How viewers are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// One loop makes the slices of a frame, and writes them to each viewer in turn.
    Bare,
    /// A task of each viewer makes its own tags, and writes each as it comes.
    OwnTags,
    /// Our viewers, whose frames wait for others up to 20 ms.
    Merged,
    /// Our viewers, whose frames wait for nothing.
    AtOnce,
}

impl Way {
    pub(crate) const ALL: [Self; 4] = [Self::Bare, Self::OwnTags, Self::Merged, Self::AtOnce];
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Bare => "bare loop, 20 ms",
            Self::OwnTags => "own tags, one by one",
            Self::Merged => "lamplight, 20 ms",
            Self::AtOnce => "lamplight, at once",
        })
    }
}

type Show<'a> = (&'a Arc<Broadcasts>, &'a Arc<Broadcast>);

/// Serves all these connections until dropped, and counts frames.
pub(crate) fn serve(
    way: Way,
    (hub, broadcast): Show<'_>,
    streams: Vec<TcpStream>,
    frames: &Arc<AtomicU64>,
) -> JoinSet<()> {
    let mut set = JoinSet::new();
    if way == Way::Bare {
        set.spawn(bare(tracks(broadcast), streams, Arc::clone(frames)));
        return set;
    }
    for stream in streams {
        let frames = Arc::clone(frames);
        match way {
            Way::Bare => {}
            Way::OwnTags => drop(set.spawn(own_tags(tracks(broadcast), stream, frames))),
            Way::Merged => drop(set.spawn(watch((hub, broadcast), MERGE, stream, frames))),
            Way::AtOnce => {
                drop(set.spawn(watch((hub, broadcast), Duration::ZERO, stream, frames)));
            }
        }
    }
    set
}

fn tracks(broadcast: &Arc<Broadcast>) -> [Cursor; 2] {
    [TrackId::Video, TrackId::Audio].map(|track| broadcast.cursor(track, Start::NewestKey))
}

/// The next frames of both tracks: at least one.
async fn gather(tracks: &mut [Cursor; 2], merge: Duration) -> Vec<Arc<Frame>> {
    let [video, audio] = tracks;
    tokio::select! {
        ready = video.ready() => ready.unwrap(),
        ready = audio.ready() => ready.unwrap(),
    }
    if !merge.is_zero() {
        sleep(merge).await;
    }
    let mut frames = Vec::new();
    for cursor in tracks {
        frames.extend(std::iter::from_fn(|| cursor.try_next()).map(|delivery| delivery.frame));
    }
    frames
}

async fn bare(mut tracks: [Cursor; 2], mut streams: Vec<TcpStream>, count: Arc<AtomicU64>) {
    loop {
        let frames = gather(&mut tracks, MERGE).await;
        let slices: Vec<Bytes> = frames
            .iter()
            .flat_map(|frame| tags::slices(frame))
            .collect();
        for stream in &mut streams {
            write(stream, &slices).await;
            count.fetch_add(frames.len() as u64, Ordering::Relaxed);
        }
    }
}

async fn own_tags(mut tracks: [Cursor; 2], mut stream: TcpStream, count: Arc<AtomicU64>) {
    let mut tag = Vec::new();
    loop {
        for frame in gather(&mut tracks, Duration::ZERO).await {
            tag.clear();
            tags::whole(&frame, &mut tag);
            stream.write_all(&tag).await.unwrap();
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A viewer of ours, written as a connection of HTTP writes it: what is there at once, in one call.
fn watch(
    (hub, broadcast): Show<'_>,
    merge: Duration,
    mut stream: TcpStream,
    count: Arc<AtomicU64>,
) -> impl Future<Output = ()> + Send + 'static {
    let terms = Terms {
        merge,
        ..Terms::default()
    };
    let opened = viewer::open(hub, broadcast, terms, CancellationToken::new());
    let (viewer, control) = opened.unwrap();
    let next = |mut viewer: viewer::Viewer| async {
        let slice = viewer.next().await?;
        Some((slice, viewer))
    };
    async move {
        let slices = unfold(viewer, next).ready_chunks(SLICES_MAX);
        let mut slices = std::pin::pin!(slices);
        let mut before = 0;
        while let Some(slices) = slices.next().await {
            write(&mut stream, &slices).await;
            let frames = control.measured().frames;
            count.fetch_add(frames - before, Ordering::Relaxed);
            before = frames;
        }
    }
}

async fn write(stream: &mut TcpStream, slices: &[Bytes]) {
    for slices in slices.chunks(SLICES_MAX) {
        let mut slices: Vec<IoSlice<'_>> = slices.iter().map(|slice| IoSlice::new(slice)).collect();
        let mut left = &mut slices[..];
        while !left.is_empty() {
            let written = stream.write_vectored(left).await.unwrap();
            IoSlice::advance_slices(&mut left, written);
        }
    }
}
