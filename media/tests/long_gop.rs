//! A source whose keyframes are too far apart, or whose pictures are too few, gives way to `clean`
//! behind the same address (spec media.md 6.3 rule 4).

use std::time::Duration;

use lamplight_media::frame::TrackId;
use lamplight_media::hls::RenditionId;

use crate::support::Form;
use crate::support::hls::{Converter, Packaged, settle, text};

const TEN_SECONDS: Form = Form { gop: 300, rate: 30 };

fn with_converter(form: Form) -> Packaged {
    let mut packaged = Packaged::of(form);
    packaged.clean = Some(Converter::beside(&packaged.show));
    packaged
}

/// The feed changes where `clean` has a keyframe, and nothing is missing before or after.
#[tokio::test(start_paused = true)]
async fn the_change_to_clean_leaves_no_hole_and_one_discontinuity() {
    for lag in [1, 3, 9] {
        let mut packaged = with_converter(TEN_SECONDS);
        packaged.clean.as_mut().unwrap().lag = lag;
        for _ in 0..30 {
            packaged.run(Duration::from_millis(500)).await;
            packaged.lists().await;
        }
        let [src, aac] = packaged.lists().await;
        assert_eq!(src.breaks().len(), 1, "{}", src.text);
        assert_eq!(src.breaks(), aac.breaks());
        let change = src.segments.iter().find(|s| s.is_discontinuity).unwrap();
        assert!(change.parts.is_empty() || change.parts[0].is_independent);
        assert_eq!(change.start_ms() % 2_000, 0, "on the grid: {}", src.text);
        assert!(change.start_ms() <= 6_000, "soon: {}", src.text);
        assert_eq!(packaged.show.broadcast().users(TrackId::Clean), 1);
    }
}

/// A distance of more than three seconds that ends in a keyframe counts as much as an open one.
#[tokio::test(start_paused = true)]
async fn a_long_distance_is_seen_when_the_keyframe_that_ends_it_comes() {
    // The last picture before the keyframe is three seconds from the one before, and not more.
    let mut packaged = with_converter(Form { gop: 37, rate: 12 });
    packaged.run(Duration::from_millis(3_400)).await;
    assert_eq!(packaged.show.broadcast().users(TrackId::Clean), 1);
}

/// No converter, or one that cannot start: the source goes on as it is.
#[tokio::test(start_paused = true)]
async fn without_a_converter_the_source_goes_on() {
    let silent = Packaged::of(TEN_SECONDS);
    let mut refused = with_converter(TEN_SECONDS);
    refused.clean.as_mut().unwrap().is_running = false;
    for mut packaged in [silent, refused] {
        packaged.run(Duration::from_millis(3_700)).await;
        assert_eq!(packaged.show.broadcast().users(TrackId::Clean), 1);
        if let Some(clean) = &packaged.clean {
            clean.writer.set_unavailable(Some("no_encoder"));
            packaged.run(Duration::from_millis(100)).await;
            assert_eq!(packaged.show.broadcast().users(TrackId::Clean), 0);
        }
        packaged.run(Duration::from_secs(15)).await;
        let [src, _] = packaged.lists().await;
        assert_eq!(src.breaks(), [] as [u64; 0], "{}", src.text);
        assert!(src.length() > Duration::from_secs(14), "{}", src.text);
    }
}

/// After the change the converter fails for good: the source comes back at its next keyframe with
/// one discontinuity, and stays.
#[tokio::test(start_paused = true)]
async fn when_the_converter_fails_the_source_comes_back_and_stays() {
    let mut packaged = with_converter(TEN_SECONDS);
    packaged.run(Duration::from_millis(8_500)).await;
    assert_eq!(packaged.list(RenditionId::Src).await.breaks().len(), 1);
    let clean = packaged.clean.as_mut().unwrap();
    clean.is_running = false;
    clean.writer.set_unavailable(Some("converter_failed"));
    settle().await;
    assert_eq!(packaged.show.broadcast().users(TrackId::Clean), 0);
    let clean = packaged.clean.as_mut().unwrap();
    clean.writer.set_unavailable(None);
    clean.is_running = true;
    packaged.run(Duration::from_secs(20)).await;
    let src = packaged.list(RenditionId::Src).await;
    src.check();
    assert_eq!(src.breaks().len(), 2, "{}", src.text);
    let back = src.segments.iter().rfind(|s| s.is_discontinuity).unwrap();
    assert_eq!(back.start_ms(), 10_000, "{}", src.text);
    assert_eq!(packaged.show.broadcast().users(TrackId::Clean), 0);
}

/// One picture a second, in bursts: `clean` takes over before anybody knows what it looks like.
#[tokio::test(start_paused = true)]
async fn the_multivariant_playlist_of_a_slow_source_shows_the_picture() {
    let mut packaged = with_converter(Form { gop: 100, rate: 1 });
    packaged.clean.as_mut().unwrap().is_running = false;
    for _ in 0..6 {
        packaged.show.step();
    }
    settle().await;
    packaged.run(Duration::from_secs(2)).await;
    packaged.clean.as_mut().unwrap().is_running = true;
    packaged.run(Duration::from_secs(16)).await;
    let multivariant = text(&packaged.stream.multivariant(None).await);
    assert!(
        multivariant.contains("RESOLUTION=640x360"),
        "{multivariant}"
    );
    assert!(multivariant.contains("\nsrc/live.m3u8"), "{multivariant}");
}

/// A network that stalls says nothing about the encoder.
#[tokio::test(start_paused = true)]
async fn a_silence_between_two_keyframes_is_no_long_distance() {
    let mut packaged = with_converter(Form { gop: 60, rate: 30 });
    packaged.run(Duration::from_millis(5_000)).await;
    packaged.show.sends_picture = false;
    packaged.run(Duration::from_millis(2_800)).await;
    packaged.show.sends_picture = true;
    packaged.run(Duration::from_millis(6_000)).await;
    assert_eq!(packaged.show.broadcast().users(TrackId::Clean), 0);
    packaged.lists().await;
}
