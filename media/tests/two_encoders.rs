//! Two encoders take a broadcast from each other again and again.

use std::sync::Arc;
use std::time::Duration;

use lamplight_media::broadcast::{BroadcastKey, Broadcasts, OpenError, PublishPolicy, Publisher};
use lamplight_media::doctor::Code;
use time::OffsetDateTime;
use tokio::time::Instant;

use crate::support::Show;

fn joins(hub: &Arc<Broadcasts>) -> Result<Publisher, OpenError> {
    let at = (Instant::now(), OffsetDateTime::UNIX_EPOCH);
    hub.join(BroadcastKey::new("room_1"), at, PublishPolicy::default())
}

#[tokio::test(start_paused = true)]
async fn encoders_that_fight_are_parted_for_half_a_minute_and_the_one_there_goes_on() {
    let mut show = Show::start(30);
    show.run(Duration::from_secs(3)).await;
    for _ in 0..3 {
        drop(show.take_over());
        show.run(Duration::from_secs(3)).await;
    }
    let hub = show.hub();
    assert_eq!(joins(&hub).unwrap_err(), OpenError::TwoEncoders);
    show.run(Duration::from_secs(2)).await;
    assert!(show.broadcast().is_sending(), "who was there stays");
    let codes = |show: &Show| -> Vec<Code> {
        let report = show.broadcast().publish_report().unwrap();
        report.verdicts.iter().map(|verdict| verdict.code).collect()
    };
    assert!(
        codes(&show).contains(&Code::TwoEncoders),
        "{:?}",
        codes(&show)
    );

    show.run(Duration::from_secs(27)).await;
    assert_eq!(joins(&hub).unwrap_err(), OpenError::TwoEncoders);
    show.run(Duration::from_secs(2)).await;
    let newer = joins(&hub);
    assert!(newer.is_ok(), "half a minute is over");
}

/// A verdict goes half a minute after its cause.
#[tokio::test(start_paused = true)]
async fn the_verdict_goes_when_nobody_fights_any_more() {
    let mut show = Show::start(30);
    show.run(Duration::from_secs(3)).await;
    for _ in 0..3 {
        drop(show.take_over());
        show.run(Duration::from_secs(3)).await;
    }
    drop(joins(&show.hub()));
    show.run(Duration::from_secs(62)).await;
    let report = show.broadcast().publish_report().unwrap();
    let is_told = report.verdicts.iter().any(|v| v.code == Code::TwoEncoders);
    assert!(!is_told, "{:?}", report.verdicts);
}
