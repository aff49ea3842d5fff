//! The publisher goes away and comes back: a viewer waits, and goes on.

use super::*;
use crate::broadcast::{EndReason, PublishPolicy};

/// Away for 2, 10 and 29 s, as media.md 11.1 has it: the same viewer goes on at the first keyframe,
/// on the same line of T, behind exactly one discontinuity.
#[tokio::test(start_paused = true)]
async fn a_viewer_goes_on_at_the_first_keyframe_of_a_publisher_that_comes_back() {
    for away_s in [2, 10, 29] {
        let mut show = Show::start(0);
        let mut viewer = show.viewer(PICTURE);
        let mut sent = Vec::new();
        let mut play = |now, viewer: &mut Playout| {
            assert_eq!(viewer.check(now), None);
            while let Some(frame) = viewer.next(now) {
                sent.push((frame.dts.as_micros(), frame.is_key, frame.discontinuities));
            }
        };
        for _ in 0..100 {
            show.picture(30);
            play(Instant::now(), &mut viewer);
            advance(STEP).await;
        }
        show.leave();
        for _ in 0..away_s * 30 {
            play(Instant::now(), &mut viewer);
            advance(STEP).await;
        }
        show.come_back();
        // Its first pictures are of a group whose beginning nobody has.
        for n in 0..100 {
            show.write(n >= 5 && n % 30 == 5, Duration::ZERO, false);
            play(Instant::now(), &mut viewer);
            advance(STEP).await;
        }
        assert_eq!(sent.len(), 100 + 95, "away for {away_s} s");
        assert!(sent.windows(2).all(|pair| pair[0].0 < pair[1].0));
        let (before, after) = (sent[99], sent[100]);
        assert!(after.1, "a keyframe first");
        assert_eq!((before.2, after.2), (0, 1));
        assert!(sent[100..].iter().all(|frame| frame.2 == 1));
        let passed_s = (after.0 - before.0) / 1_000_000;
        assert!((away_s..=away_s + 1).contains(&passed_s), "{passed_s} s");
    }
}

/// Another encoder takes over in the middle of a group.
#[tokio::test(start_paused = true)]
async fn a_viewer_of_a_show_that_is_taken_over_gets_nothing_of_a_group_it_did_not_see() {
    let mut show = Show::start(0);
    let mut viewer = show.viewer(PICTURE);
    show.run(40, 30).await;
    assert!(!pictures(&mut viewer).is_empty());
    show.come_back();
    for _ in 0..10 {
        show.write(false, Duration::ZERO, false);
    }
    assert_eq!(pictures(&mut viewer), [0; 0]);
    show.write(true, Duration::ZERO, false);
    assert_eq!(pictures(&mut viewer).len(), 1);
}

/// Nobody comes: the broadcast ends, and with it the session that waits for its end.
#[tokio::test(start_paused = true)]
async fn a_viewer_is_let_go_when_the_grace_is_over() {
    let mut show = Show::start(0);
    show.run(10, 30).await;
    let (hub, broadcast) = (Arc::clone(&show.hub), Arc::clone(show.broadcast()));
    show.leave();
    let left = Instant::now();
    let ended = tokio::select! {
        () = hub.watch() => unreachable!("it runs for ever"),
        reason = broadcast.ended() => reason,
    };
    assert_eq!(ended, EndReason::Lost);
    let waited = left
        .elapsed()
        .saturating_sub(PublishPolicy::default().grace);
    assert!(waited < Duration::from_millis(10), "{waited:?} longer");
    assert!(left.elapsed() >= PublishPolicy::default().grace);
}
