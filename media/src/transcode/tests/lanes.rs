//! One decoder, several encoders.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{FRAME_US, frame, open, publish, source};
use crate::broadcast::Start;
use crate::frame::{Frame, TrackId};
use crate::transcode::encoder::Encoded;
use crate::transcode::lanes::Lanes;
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
    let encoding = first.add(TrackId::Clean).unwrap();
    feed(&first, &units[..60]).await;
    let mut before = Vec::new();
    while before.len() < 55 {
        before.push(cursor.next().await.unwrap().frame);
    }
    drop((first, encoding));
    let second = Lanes::start(&broadcast, &config).unwrap();
    let _encoding = second.add(TrackId::Clean).unwrap();
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
    let mut encodings = vec![lanes.add(tracks[0]).unwrap(), lanes.add(tracks[1]).unwrap()];
    for (n, unit) in units.iter().enumerate() {
        if n == 90 {
            encodings.push(lanes.add(tracks[2]).unwrap());
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
