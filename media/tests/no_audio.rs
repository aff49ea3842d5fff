//! Sound or picture that was announced and never comes, or stops, or comes too late.

use std::time::Duration;

use lamplight_media::frame::TrackId;
use lamplight_media::hls::{Answer, HlsConfig, RenditionId};

use crate::support::hls::{BOTH, CONFIG, Packaged, Silence, text};
use crate::support::{Form, Show};

/// An AAC header without a frame: LL-HLS shows the picture alone.
#[tokio::test(start_paused = true)]
async fn announced_sound_that_never_comes_does_not_keep_the_picture_back() {
    let mut packaged = Packaged::start();
    packaged.show.sends_sound = false;
    packaged.run(Duration::from_secs(3)).await;
    let multivariant = text(&packaged.stream.multivariant(None).await);
    assert!(multivariant.contains("RESOLUTION="), "{multivariant}");
    assert!(!multivariant.contains("AUDIO"), "{multivariant}");
    packaged.show.sends_sound = true;
    packaged.run(Duration::from_secs(3)).await;
    let sound = packaged.answer(RenditionId::Aac, "").await;
    assert!(
        matches!(sound, Answer::NotFound),
        "it waits for the next instance"
    );
    packaged.list(RenditionId::Src).await.check();
}

/// The mirror: sound leads.
#[tokio::test(start_paused = true)]
async fn an_announced_picture_that_never_comes_does_not_keep_the_sound_back() {
    let mut packaged = Packaged::start();
    packaged.show.sends_picture = false;
    packaged.run(Duration::from_secs(9)).await;
    let multivariant = text(&packaged.stream.multivariant(None).await);
    assert!(!multivariant.contains("RESOLUTION="), "{multivariant}");
    assert!(multivariant.contains("\naac/live.m3u8"), "{multivariant}");
    let sound = packaged.list(RenditionId::Aac).await;
    sound.check();
    sound.check_that_nothing_is_missing();
    assert!(sound.length() >= Duration::from_secs(6), "{}", sound.text);
    assert!(sound.segments[0].start_ms().abs() < 5, "{}", sound.text);
}

/// Sound stops and comes back: gaps meanwhile, in its own list only.
#[tokio::test(start_paused = true)]
async fn sound_that_stops_is_a_gap_until_it_comes_back() {
    let mut packaged = Packaged::start();
    packaged.run(Duration::from_millis(4_700)).await;
    packaged.show.sends_sound = false;
    packaged.run(Duration::from_millis(8_000)).await;
    packaged.lists().await;
    packaged.show.sends_sound = true;
    packaged.run(Duration::from_millis(5_000)).await;
    let [src, aac] = packaged.lists().await;
    assert!(src.segments.iter().all(|s| !s.is_gap), "{}", src.text);
    let gaps: Vec<u64> = aac
        .segments
        .iter()
        .filter(|s| s.is_gap)
        .map(|s| s.msn)
        .collect();
    // It comes back in the midst of a segment, which lists cannot say.
    assert_eq!(gaps, [3, 4, 5, 6], "{}", aac.text);
}

/// Sound that stays away and then delivers what is long over: it is left out, and what comes in
/// time is in the segment of its T.
#[tokio::test(start_paused = true)]
async fn sound_for_an_interval_already_given_up_is_left_out() {
    let mut packaged = Packaged::start();
    packaged.run(Duration::from_millis(4_000)).await;
    packaged.show.holds_sound = true;
    packaged.run(Duration::from_millis(8_500)).await;
    packaged.show.holds_sound = false;
    packaged.run(Duration::from_millis(4_000)).await;
    let [_, aac] = packaged.lists().await;
    for segment in aac.complete().filter(|s| !s.is_gap && !s.parts.is_empty()) {
        let parts: Duration = segment.parts.iter().map(|p| p.duration).sum();
        let lasts = segment.duration.unwrap();
        assert!(parts <= lasts + Duration::from_millis(1), "{}", aac.text);
    }
    for rendition in BOTH {
        packaged.media_of(rendition).await;
    }
}

/// With `hls.silent_audio` a show without sound has silence for one from its first segment on.
#[tokio::test(start_paused = true)]
async fn silence_fills_a_sound_that_is_missing_or_never_comes() {
    for announces_sound in [false, true] {
        let config = HlsConfig {
            has_silent_audio: true,
            ..CONFIG
        };
        let mut show = if announces_sound {
            Show::start(60)
        } else {
            Show::without_sound(Form { gop: 60, rate: 30 })
        };
        show.sends_sound = false;
        let mut packaged = Packaged::with(show, config);
        packaged.silence = Some(Silence::beside(&packaged.show));
        packaged.run(Duration::from_secs(9)).await;
        let multivariant = text(&packaged.stream.multivariant(None).await);
        assert!(multivariant.contains("AUDIO=\"aac\""), "{multivariant}");
        let [src, aac] = packaged.lists().await;
        assert!(aac.segments.iter().all(|s| !s.is_gap), "{}", aac.text);
        assert_eq!(src.segments[0].msn, aac.segments[0].msn);
        assert_eq!(packaged.show.broadcast().users(TrackId::Aac), 1);
    }
}
