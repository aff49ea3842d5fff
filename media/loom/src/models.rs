//! What must hold however the threads interleave.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use loom::future::block_on;
use loom::model::Builder;
use loom::thread;
use tokio::sync::watch;

use crate::broadcast::ring::{Cursor, Ended, Ring, Start};
use crate::frame::{Codec, Frame, Shape, TrackId, TrackInfo};
use crate::time::MediaTime;

/// More preemptions than any known fault of this kind needs.
const PREEMPTIONS_MAX: usize = 3;

fn model(check: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS_MAX);
    builder.check(check);
}

fn ring() -> Arc<Ring> {
    Arc::new(Ring::new(TrackId::Video, watch::Sender::new(0)))
}

/// The picture of a place in the show; its bytes say which.
fn frame(n: i64, is_key: bool) -> Arc<Frame> {
    let info = TrackInfo {
        codec: Codec::H264,
        generation: 0,
        shape: Shape::Video {
            width: 2,
            height: 2,
        },
        config: Bytes::new(),
        reorder_frames: None,
    };
    let t = MediaTime::from_micros(n * 40_000);
    Arc::new(Frame {
        track: TrackId::Video,
        info: Arc::new(info),
        dts: t,
        pts: t,
        duration: None,
        is_key,
        is_discardable: false,
        discontinuities: 0,
        payload: Bytes::copy_from_slice(&n.to_be_bytes()),
        rtp: OnceLock::new(),
        flv: OnceLock::new(),
        arrived: OnceLock::new(),
    })
}

/// Writes pictures of which the first is a keyframe, then ends the track.
fn writes(ring: Arc<Ring>, count: i64) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        for n in 0..count {
            assert!(ring.push(frame(n, n == 0)), "nobody else writes");
        }
        ring.close();
    })
}

/// All pictures up to the end, by their bytes; a torn one would not be at its time.
fn reads(mut cursor: Cursor) -> Vec<i64> {
    let mut seen = Vec::new();
    let ended = block_on(async {
        loop {
            match cursor.next().await {
                Ok(delivery) => {
                    let bytes = delivery.frame.payload.as_ref().try_into();
                    let n = i64::from_be_bytes(bytes.expect("eight bytes"));
                    assert_eq!(delivery.frame.dts.as_micros(), n * 40_000, "torn");
                    assert_eq!(delivery.skipped, 0);
                    seen.push(n);
                }
                Err(ended) => break ended,
            }
        }
    });
    assert_eq!(ended, Ended);
    seen
}

/// Nothing comes after the one frame that could wake the reader in its place.
pub fn a_frame_that_is_written_wakes_who_waits_for_it() {
    model(|| {
        let ring = ring();
        let mut cursor = ring.cursor(Start::Live);
        let writer = thread::spawn({
            let ring = Arc::clone(&ring);
            move || ring.push(frame(0, true))
        });
        let delivery = block_on(cursor.next());
        assert_eq!(delivery.expect("it goes on").frame.dts, MediaTime::ZERO);
        assert!(writer.join().unwrap());
    });
}

/// A reader that waits gets every frame once, in order, and then the end: no wake-up is lost.
pub fn a_reader_gets_every_frame_once_and_then_the_end() {
    model(|| {
        let ring = ring();
        let cursor = ring.cursor(Start::Live);
        let writer = writes(Arc::clone(&ring), 2);
        assert_eq!(reads(cursor), [0, 1]);
        writer.join().unwrap();
    });
}

/// Readers are woken each for itself.
pub fn two_readers_get_the_same() {
    model(|| {
        let ring = ring();
        let (one, other) = (ring.cursor(Start::Live), ring.cursor(Start::OldestKey));
        let writer = writes(Arc::clone(&ring), 1);
        let other = thread::spawn(move || reads(other));
        assert_eq!(reads(one), [0]);
        assert_eq!(other.join().unwrap(), [0]);
        writer.join().unwrap();
    });
}

/// A reader may look, jump ahead, and wait in any order: it never goes back and never hangs.
pub fn a_reader_that_jumps_goes_forward_and_comes_to_the_end() {
    model(|| {
        let ring = ring();
        let mut cursor = ring.cursor(Start::NewestKey);
        let writer = thread::spawn({
            let ring = Arc::clone(&ring);
            move || {
                for n in 0..2 {
                    ring.push(frame(n, true));
                }
                ring.close();
            }
        });
        let mut last = None;
        block_on(async {
            while cursor.ready().await.is_ok() {
                cursor.jump_to_newest_key();
                if let Some(delivery) = cursor.try_next() {
                    let t = delivery.frame.dts;
                    assert!(last.is_none_or(|last| t > last), "it went back");
                    last = Some(t);
                }
            }
        });
        assert_eq!(
            last,
            Some(MediaTime::from_micros(40_000)),
            "the newest is seen"
        );
        writer.join().unwrap();
    });
}

/// A reader that comes while the track ends either sees the end or what came before it.
pub fn a_reader_that_comes_at_the_end_does_not_wait_for_ever() {
    model(|| {
        let ring = ring();
        let writer = writes(Arc::clone(&ring), 1);
        let seen = reads(ring.cursor(Start::NewestKey));
        assert!(seen.is_empty() || seen == [0], "{seen:?}");
        writer.join().unwrap();
    });
}
