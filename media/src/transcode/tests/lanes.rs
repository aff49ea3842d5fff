//! One decoder, several encoders.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{FRAME_US, frame, open, publish, source, source_of};
use crate::broadcast::{Cursor, Start};
use crate::frame::{Frame, TrackId};
use crate::time::MediaTime;
use crate::transcode::encoder::Encoded;
use crate::transcode::lanes::{Begin, Lanes};
use crate::transcode::worker::Refused;
use crate::transcode::{ConvertConfig, run};

/// A converter that stalled is started again in the middle of a group: what its viewers get next
/// refers to nothing that the new encoder never made.
#[tokio::test]
async fn a_converter_that_is_started_again_goes_on_with_a_keyframe() {
    let (info, units) = source(5);
    let mut publisher = open(info.clone());
    publish(&mut publisher, &units);
    let (broadcast, config) = (Arc::clone(publisher.broadcast()), Arc::default());
    let info = Arc::new(info);
    let mut cursor = broadcast.cursor(TrackId::Clean, Start::OldestKey);
    let feed = async |worker: &Lanes, units: &[Encoded]| {
        for unit in units {
            let mut offered = worker.offer(Arc::new(frame(&info, unit)));
            while let Err(Refused::Full(frame)) = offered {
                tokio::task::yield_now().await;
                offered = worker.offer(frame);
            }
        }
    };
    let first = Lanes::start(&broadcast, &config).unwrap();
    let encoding = first
        .add(broadcast.make(TrackId::Clean).unwrap(), Begin::Next)
        .unwrap();
    feed(&first, &units[..60]).await;
    let mut before = Vec::new();
    while before.len() < 55 {
        before.push(cursor.next().await.unwrap().frame);
    }
    drop((first, encoding));
    let second = Lanes::start(&broadcast, &config).unwrap();
    let _encoding = second
        .add(broadcast.make(TrackId::Clean).unwrap(), Begin::Next)
        .unwrap();
    feed(&second, &units).await;
    let newest = before.last().unwrap().dts;
    let mut next = cursor.next().await.unwrap().frame;
    // The first worker may have made some more before it was given up.
    while next.dts.micros_since(newest) < 10 * FRAME_US && !next.is_key {
        next = cursor.next().await.unwrap().frame;
    }
    assert!(next.is_key, "{next:?} after {newest:?}");
}

/// Two tracks from the start and one that joins: each begins with a keyframe, and where one has a
/// keyframe all have it.
#[tokio::test]
async fn all_made_pictures_have_their_keyframes_at_equal_t() {
    let (info, units) = source(8);
    let mut publisher = open(info.clone());
    publish(&mut publisher, &units);
    let (broadcast, config) = (Arc::clone(publisher.broadcast()), Arc::default());
    let info = Arc::new(info);
    let tracks = [TrackId::Clean, TrackId::Rung(360), TrackId::Rung(240)];
    let mut cursors = tracks.map(|track| broadcast.cursor(track, Start::OldestKey));
    let lanes = Lanes::start(&broadcast, &config).unwrap();
    let mut encodings = vec![
        lanes
            .add(broadcast.make(tracks[0]).unwrap(), Begin::Next)
            .unwrap(),
        lanes
            .add(broadcast.make(tracks[1]).unwrap(), Begin::Next)
            .unwrap(),
    ];
    for (n, unit) in units.iter().enumerate() {
        if n == 90 {
            encodings.push(
                lanes
                    .add(broadcast.make(tracks[2]).unwrap(), Begin::Next)
                    .unwrap(),
            );
        }
        let mut offered = lanes.offer(Arc::new(frame(&info, unit)));
        while let Err(Refused::Full(frame)) = offered {
            tokio::time::sleep(Duration::from_millis(1)).await;
            offered = lanes.offer(frame);
        }
    }
    let end = units.iter().map(|unit| unit.pts).max().unwrap() - 4 * FRAME_US;
    let mut keys = Vec::new();
    for cursor in &mut cursors {
        let mut frames = Vec::new();
        while frames
            .last()
            .is_none_or(|f: &Arc<Frame>| f.dts.as_micros() < end)
        {
            frames.push(cursor.next().await.unwrap().frame);
        }
        assert!(frames[0].is_key && frames.iter().all(|f| f.pts == f.dts));
        let steps = frames.windows(2).map(|w| w[1].dts.micros_since(w[0].dts));
        assert!(steps.into_iter().all(|us| us == FRAME_US));
        let its = frames.iter().filter(|f| f.is_key);
        keys.push(its.map(|f| f.dts.as_micros()).collect::<Vec<_>>());
    }
    assert_eq!(keys[0], keys[1]);
    assert!(keys[0].ends_with(&keys[2]), "{keys:?}");
    assert!(keys[2].len() < keys[0].len() && !keys[2].is_empty());
    let decoded = lanes.decoded.load(Ordering::Relaxed);
    assert!(decoded <= 200, "each picture once for all three: {decoded}");
}

#[tokio::test]
async fn a_rung_runs_beside_clean_while_somebody_reads_it() {
    let (info, units) = source(3);
    let mut publisher = open(info);
    publish(&mut publisher, &units);
    let broadcast = Arc::clone(publisher.broadcast());
    let cancel = CancellationToken::new();
    let config = Arc::new(ConvertConfig {
        linger: Duration::ZERO,
        ..ConvertConfig::default()
    });
    let running = run(Arc::clone(&broadcast), config, cancel.clone());
    let watching = async {
        let mut clean = broadcast.cursor(TrackId::Clean, Start::NewestKey);
        clean.next().await.unwrap();
        let mut rung = broadcast.cursor(TrackId::Rung(240), Start::NewestKey);
        publish(&mut publisher, &shifted(&units, 3));
        let first = rung.next().await.unwrap().frame;
        assert!(first.is_key && first.track == TrackId::Rung(240));
        assert_eq!(broadcast.users(TrackId::Video), 1, "one decoder for both");
        drop(clean);
        publish(&mut publisher, &shifted(&units, 6));
        let before = rung.next().await.unwrap().frame.dts;
        while rung.next().await.unwrap().frame.dts.micros_since(before) < 1_000_000 {}
        drop(rung);
        while broadcast.users(TrackId::Video) > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        cancel.cancel();
    };
    tokio::join!(running, watching);
}

/// Reads up to this T.
async fn read_to(cursor: &mut Cursor, end: i64) -> Vec<Arc<Frame>> {
    let mut frames: Vec<Arc<Frame>> = Vec::new();
    while frames.last().is_none_or(|f| f.dts.as_micros() < end) {
        frames.push(cursor.next().await.unwrap().frame);
    }
    assert_even(&frames);
    frames
}

fn assert_even(frames: &[Arc<Frame>]) {
    for pair in frames.windows(2) {
        let [one, next] = [&pair[0], &pair[1]].map(|f| f.dts.as_micros());
        assert_eq!(
            next - one,
            FRAME_US,
            "after {one} of {} frames",
            frames.len()
        );
    }
}

fn keys(frames: &[Arc<Frame>]) -> Vec<i64> {
    let keys = frames.iter().filter(|f| f.is_key);
    keys.map(|f| f.dts.as_micros()).collect()
}

/// An LL-HLS player chooses a rung: it is made from an older keyframe on.
#[tokio::test]
async fn a_rung_begins_at_the_keyframe_that_its_reader_names() {
    let (info, units) = source_of(8, 25);
    let mut publisher = open(info);
    publish(&mut publisher, &units);
    let broadcast = Arc::clone(publisher.broadcast());
    let cancel = CancellationToken::new();
    let running = run(Arc::clone(&broadcast), Arc::default(), cancel.clone());
    let reading = async {
        let all: Vec<_> = units.iter().filter(|unit| unit.is_key).collect();
        let key = all[3];
        let from = MediaTime::from_micros(key.dts);
        let mut cursor = broadcast.cursor_from(TrackId::Rung(240), from);
        let frames = read_to(&mut cursor, 7 * 1_000_000).await;
        cancel.cancel();
        assert_eq!(
            keys(&frames),
            all[3..7].iter().map(|u| u.pts).collect::<Vec<_>>()
        );
    };
    tokio::join!(running, reading);
}

/// The same while the decoder runs for another track: it goes back, the other goes on as if nothing
/// had happened, and both have their keyframes at equal T.
#[tokio::test]
async fn the_one_decoder_goes_back_for_a_rung_that_begins_behind_it() {
    let (info, units) = source_of(8, 25);
    let (before, after) = units.split_at(150);
    let mut publisher = open(info);
    publish(&mut publisher, before);
    let broadcast = Arc::clone(publisher.broadcast());
    let cancel = CancellationToken::new();
    let running = run(Arc::clone(&broadcast), Arc::default(), cancel.clone());
    let reading = async {
        let all: Vec<_> = units
            .iter()
            .filter(|unit| unit.is_key)
            .map(|u| u.pts)
            .collect();
        let mut clean = broadcast.cursor_from(TrackId::Clean, MediaTime::from_micros(all[1]));
        let mut frames = read_to(&mut clean, 5_500_000).await;
        // Somebody asks for one that is not in the source.
        clean.request_keyframe();
        publish(&mut publisher, &after[..20]);
        frames.extend(read_to(&mut clean, 6_500_000).await);
        let mut rung = broadcast.cursor_from(TrackId::Rung(240), MediaTime::from_micros(all[5]));
        publish(&mut publisher, &after[20..40]);
        let made = read_to(&mut rung, 7_400_000).await;
        assert_eq!(broadcast.users(TrackId::Video), 1, "one decoder for both");
        frames.extend(read_to(&mut clean, 7_400_000).await);
        cancel.cancel();
        let [clean, rung] = [keys(&frames), keys(&made)];
        assert_eq!(rung[0], all[5]);
        assert!(clean.ends_with(&rung), "{clean:?} {rung:?}");
        assert!(clean.iter().any(|key| !all.contains(key)), "{clean:?}");
        assert_even(&frames);
    };
    tokio::join!(running, reading);
}

/// The same pictures so many seconds later.
fn shifted(units: &[Encoded], seconds: i64) -> Vec<Encoded> {
    let by = seconds * 1_000_000;
    let shift = |unit: &Encoded| Encoded {
        dts: unit.dts + by,
        pts: unit.pts + by,
        ..unit.clone()
    };
    units.iter().map(shift).collect()
}
