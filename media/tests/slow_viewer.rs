//! A viewer that does not keep up.

use std::time::Duration;

use lamplight_media::broadcast::{Cursor, Start};
use lamplight_media::frame::TrackId;
use tokio::time::Instant;

use crate::support::Show;

/// The picture of a show of 30 a second that stands at a place of T.
fn number(cursor: &mut Cursor) -> Option<(i64, bool, i64)> {
    let delivery = cursor.try_next()?;
    let number = (delivery.frame.dts.as_micros() * 30 + 500_000) / 1_000_000;
    Some((number, delivery.frame.is_key, delivery.skipped.into()))
}

#[tokio::test(start_paused = true)]
async fn a_viewer_that_fell_behind_jumps_to_a_keyframe_and_every_picture_passed_over_counts() {
    for away in [13, 20, 47] {
        let mut show = Show::start(60);
        show.run(Duration::from_secs(3)).await;
        let mut viewer = show.broadcast().cursor(TrackId::Video, Start::NewestKey);
        let mut last = None;
        while let Some((n, _, skipped)) = number(&mut viewer) {
            assert_eq!(skipped, 0);
            last = Some(n);
        }
        show.run(Duration::from_secs(away)).await;
        let (first, is_key, skipped) = number(&mut viewer).unwrap();
        assert!(is_key, "away for {away} s");
        assert_eq!(skipped, first - last.unwrap() - 1, "away for {away} s");
        let mut next = first;
        while let Some((n, _, skipped)) = number(&mut viewer) {
            next += 1;
            assert_eq!((n, skipped), (next, 0));
        }
        assert_eq!(next + 1, show.pictures, "up to the newest");
    }
}

/// Time stands still while a frame is written, whoever reads, and however slowly.
#[tokio::test(start_paused = true)]
async fn a_publisher_waits_for_nobody() {
    let mut show = Show::start(60);
    show.run(Duration::from_secs(1)).await;
    let broadcast = show.broadcast();
    let viewers: Vec<Cursor> = (0..100)
        .map(|_| broadcast.cursor(TrackId::Video, Start::NewestKey))
        .collect();
    for _ in 0..900 {
        tokio::time::advance(show.picture_length()).await;
        let before = Instant::now();
        show.step();
        assert_eq!(Instant::now(), before);
    }
    assert_eq!(broadcast.users(TrackId::Video), viewers.len());
}
