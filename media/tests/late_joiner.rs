//! Somebody opens the page in the middle of a show.

use std::time::Duration;

use lamplight_media::broadcast::{Cursor, Start};
use lamplight_media::frame::TrackId;
use lamplight_media::time::MediaTime;

use crate::support::Show;

fn drain(cursor: &mut Cursor) -> Vec<(MediaTime, bool, u32)> {
    std::iter::from_fn(|| cursor.try_next())
        .map(|d| (d.frame.dts, d.frame.is_key, d.skipped))
        .collect()
}

/// Wherever in the group they join: first the newest keyframe, then each frame after it.
#[tokio::test(start_paused = true)]
async fn a_late_joiner_starts_at_the_newest_keyframe_and_misses_nothing_after_it() {
    let mut show = Show::start(60);
    let broadcast = show.broadcast();
    for _ in 0..12 {
        show.run(Duration::from_millis(730)).await;
        let newest = broadcast
            .cursor(TrackId::Video, Start::Live)
            .newest_dts()
            .unwrap();
        let mut viewer = broadcast.cursor(TrackId::Video, Start::NewestKey);
        let key = viewer.newest_key_dts().unwrap();
        let mut got = drain(&mut viewer);
        show.run(Duration::from_millis(500)).await;
        got.extend(drain(&mut viewer));

        assert_eq!((got[0].0, got[0].1), (key, true));
        assert_eq!(
            got.iter().filter(|g| g.1 && g.0 <= newest).count(),
            1,
            "only one group"
        );
        assert!(got.iter().all(|g| g.2 == 0), "nothing was passed over");
        let steps = got.windows(2).map(|w| w[1].0.micros_since(w[0].0));
        assert!(steps.into_iter().all(|us| (33_000..=34_000).contains(&us)));
    }
}

/// Sound joins where the picture does, within one frame of sound.
#[tokio::test(start_paused = true)]
async fn a_late_joiner_hears_from_the_keyframe_on() {
    let mut show = Show::start(60);
    show.run(Duration::from_millis(5_300)).await;
    let broadcast = show.broadcast();
    let key = broadcast
        .cursor(TrackId::Video, Start::NewestKey)
        .try_next()
        .unwrap()
        .frame
        .dts;
    let mut sound = broadcast.cursor(TrackId::Audio, Start::At(key));
    let first = sound.try_next().unwrap().frame.dts;
    assert!((0..23_220).contains(&first.micros_since(key)));
}

/// Twenty viewers at once cost the ring nothing and each other nothing.
#[tokio::test(start_paused = true)]
async fn late_joiners_do_not_disturb_each_other() {
    let mut show = Show::start(60);
    show.run(Duration::from_secs(5)).await;
    let broadcast = show.broadcast();
    let mut viewers: Vec<_> = (0..20)
        .map(|_| broadcast.cursor(TrackId::Video, Start::NewestKey))
        .collect();
    let first = drain(&mut viewers[0]);
    show.run(Duration::from_secs(30)).await;
    let slow = drain(&mut viewers[0])[0];
    assert!(
        !first.is_empty() && slow.1 && slow.2 > 0,
        "who slept jumps to a keyframe"
    );
    let fresh = drain(&mut viewers[1]);
    assert!(fresh[0].1 && fresh[0].0 == slow.0 && fresh.iter().all(|f| f.2 == 0));
    assert_eq!(broadcast.users(TrackId::Video), 20);
    viewers.clear();
    assert_eq!(broadcast.users(TrackId::Video), 0);
}
