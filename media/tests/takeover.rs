//! A newer publisher with the same key takes the place of the one that is there.

use std::time::Duration;

use lamplight_media::broadcast::{Cursor, EndReason, Start};
use lamplight_media::frame::{Kind, Sample, TrackId};
use lamplight_media::time::{MediaTime, SourceTime};
use tokio::time::Instant;

use crate::support::Show;
use crate::support::hls::Packaged;

fn drain(cursor: &mut Cursor) -> Vec<(MediaTime, u32)> {
    std::iter::from_fn(|| cursor.try_next())
        .map(|d| (d.frame.dts, d.frame.discontinuities))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn viewers_go_on_over_one_discontinuity_when_a_newer_publisher_takes_over() {
    let mut show = Show::start(60);
    let broadcast = show.broadcast();
    let mut cursors = [TrackId::Video, TrackId::Audio].map(|t| broadcast.cursor(t, Start::Live));
    show.run(Duration::from_secs(5)).await;
    let instance = broadcast.instance().to_owned();
    let _older = show.take_over();
    show.run(Duration::from_secs(5)).await;
    for cursor in &mut cursors {
        let seen = drain(cursor);
        assert!(seen.windows(2).all(|w| w[0].0 < w[1].0), "T goes back");
        let breaks = seen.windows(2).filter(|w| w[0].1 != w[1].1);
        assert_eq!(breaks.count(), 1, "{:?}", cursor.track());
        assert!(seen.len() > 200, "both takes are there");
    }
    assert_eq!(show.broadcast().instance(), instance);
    assert!(broadcast.has_publisher() && !broadcast.is_ended());
}

#[tokio::test(start_paused = true)]
async fn the_older_publisher_is_told_and_nothing_it_still_sends_is_taken() {
    let mut show = Show::start(60);
    show.run(Duration::from_secs(2)).await;
    let mut older = show.take_over();
    show.run(Duration::from_secs(1)).await;
    assert_eq!(older.ended().await, EndReason::Replaced);
    let late = Sample {
        kind: Kind::Video,
        dts: SourceTime::from_millis(3_000),
        composition: Duration::ZERO,
        samples: 0,
        is_key: true,
        is_discardable: false,
        payload: bytes::Bytes::from_static(&[0, 0, 0, 3, 0x65, 1, 2]),
    };
    assert_eq!(older.write(Instant::now(), late), None);
    // Its going ends nothing: it is nobody any more.
    older.finish(EndReason::Finished);
    show.run(Duration::from_secs(40)).await;
    assert!(!show.broadcast().is_ended());
}

/// One discontinuity in each rendition, and no gap where none was.
#[tokio::test(start_paused = true)]
async fn a_takeover_is_one_discontinuity_of_the_playlists() {
    let mut packaged = Packaged::start();
    packaged.run(Duration::from_millis(6_300)).await;
    let _older = packaged.show.take_over();
    packaged.run(Duration::from_secs(10)).await;
    for list in packaged.lists().await {
        assert_eq!(list.breaks().len(), 1, "{}", list.text);
        assert!(list.segments.iter().all(|s| !s.is_gap), "{}", list.text);
    }
}
