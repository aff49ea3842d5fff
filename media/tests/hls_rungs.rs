//! Rungs in LL-HLS: listed from the start, made while somebody plays them, cut where `src` is cut
//! (spec media.md 6.2, 6.3 rules 5 and 6).

use std::time::Duration;

use lamplight_media::frame::TrackId;
use lamplight_media::hls::{Answer, HlsConfig, RenditionId};

use crate::support::Show;
use crate::support::hls::{CONFIG, Packaged, Rung, text};
use crate::support::list::List;

const RUNG: RenditionId = RenditionId::Rung(240);
const TRACK: TrackId = TrackId::Rung(240);

fn show(composition: Duration) -> Packaged {
    let config = HlsConfig {
        has_rungs: true,
        ..CONFIG
    };
    let mut show = Show::start(60);
    show.composition = composition;
    let mut packaged = Packaged::with(show, config);
    packaged.rung = Some(Rung::beside(&packaged.show, 240));
    packaged
}

/// Asks for the rung while the show goes on, as a player does that has just chosen it.
async fn join(packaged: &mut Packaged) -> List {
    let stream = std::sync::Arc::clone(&packaged.stream);
    let asked = stream.playlist(RUNG, Default::default());
    tokio::pin!(asked);
    for _ in 0..200 {
        tokio::select! {
            biased;
            answer = &mut asked => return List::read(&text(&answer)),
            () = packaged.run(Duration::from_millis(40)) => {}
        }
    }
    panic!("held for longer than it takes");
}

/// The rung's list, checked by itself and against that of `src`.
async fn checked(packaged: &Packaged) -> [List; 2] {
    let [src, _] = packaged.lists().await;
    let rung = packaged.list(RUNG).await;
    rung.check();
    rung.check_that_nothing_is_missing();
    src.check_beside(&rung);
    [src, rung]
}

#[tokio::test(start_paused = true)]
async fn every_rung_of_the_ladder_is_listed_and_none_is_made() {
    let mut packaged = show(Duration::ZERO);
    packaged.run(Duration::from_secs(5)).await;
    let text = text(&packaged.stream.multivariant(None).await);
    assert!(text.contains("RESOLUTION=426x240"), "{text}");
    assert!(text.contains("v240/live.m3u8"), "{text}");
    assert!(text.contains("CODECS=\"avc1.42c015,mp4a.40.2\""), "{text}");
    assert_eq!(packaged.show.broadcast().users(TRACK), 0);
    let other = packaged.answer(RenditionId::Rung(360), "").await;
    assert!(matches!(other, Answer::NotFound), "{other:?}");
}

/// Whether the source reorders its pictures or not.
#[tokio::test(start_paused = true)]
async fn a_rung_begins_late_with_gaps_and_at_least_a_hold_back_before_the_edge() {
    for composition in [Duration::ZERO, Duration::from_millis(66)] {
        let mut packaged = show(composition);
        packaged.run(Duration::from_secs(9)).await;
        let list = join(&mut packaged).await;
        let media: Vec<_> = list.segments.iter().filter(|s| !s.is_gap).collect();
        let parts = media.iter().flat_map(|s| &s.parts);
        let playable: Duration = parts.map(|part| part.duration).sum();
        assert!(playable >= Duration::from_millis(1_500), "{}", list.text);
        assert!(list.segments[0].is_gap && list.segments[0].msn == 0);
        assert!(media[0].parts[0].is_independent);
        packaged.run(Duration::from_secs(6)).await;
        for _ in 0..20 {
            let before = packaged.list(RUNG).await;
            packaged.run(Duration::from_millis(450)).await;
            packaged.list(RUNG).await.check_follows(&before);
            let [src, rung] = checked(&packaged).await;
            let late = src.segments.last().unwrap().msn - rung.segments.last().unwrap().msn;
            assert!(late <= 1, "{}\n{}", src.text, rung.text);
        }
        let [src, rung] = checked(&packaged).await;
        let first = rung.segments.iter().find(|s| !s.is_gap).unwrap().msn;
        assert!(rung.segments.iter().all(|s| s.msn < first || !s.is_gap));
        assert!(
            src.text.contains("URI=\"../v240/live.m3u8\""),
            "{}",
            src.text
        );
        assert!(
            rung.text.contains("URI=\"../src/live.m3u8\""),
            "{}",
            rung.text
        );
        assert!(rung.text.contains("EXT-X-INDEPENDENT-SEGMENTS"));
        packaged.media_of(RUNG).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_rung_that_nobody_plays_goes_on_with_gaps_and_can_be_played_again() {
    let mut packaged = show(Duration::ZERO);
    packaged.run(Duration::from_secs(5)).await;
    join(&mut packaged).await;
    packaged.run(Duration::from_secs(3)).await;
    let before = packaged.list(RUNG).await;
    packaged.run(Duration::from_secs(16)).await;
    assert_eq!(
        packaged.show.broadcast().users(TRACK),
        0,
        "nobody asked for so long"
    );
    let again = join(&mut packaged).await;
    again.check_follows(&before);
    let gaps = again
        .segments
        .iter()
        .filter(|s| s.is_gap && s.msn > before.segments[0].msn + 3);
    assert!(gaps.count() >= 1, "{}", again.text);
    assert!(!again.segments.last().unwrap().is_gap, "{}", again.text);
    packaged.run(Duration::from_secs(2)).await;
    checked(&packaged).await;
}

#[tokio::test(start_paused = true)]
async fn a_publisher_that_comes_back_breaks_every_rendition_at_one_place() {
    let mut packaged = show(Duration::from_millis(66));
    packaged.run(Duration::from_secs(5)).await;
    join(&mut packaged).await;
    packaged.run(Duration::from_secs(3)).await;
    packaged.show.leave();
    for _ in 0..7 {
        packaged.run(Duration::from_secs(1)).await;
        checked(&packaged).await;
    }
    packaged.show.come_back();
    for _ in 0..7 {
        packaged.run(Duration::from_secs(1)).await;
        checked(&packaged).await;
    }
    let [src, rung] = checked(&packaged).await;
    assert_eq!(src.breaks().len(), 1, "{}", src.text);
    assert_eq!(src.breaks(), rung.breaks(), "{}", rung.text);
    let gaps = |list: &List| {
        let gaps = list
            .segments
            .iter()
            .filter(|s| s.is_gap && s.start_ms() > 7_000);
        gaps.map(|s| s.msn).collect::<Vec<_>>()
    };
    assert_eq!(gaps(&src), gaps(&rung), "{}\n{}", src.text, rung.text);
    assert!(!rung.segments.last().unwrap().is_gap, "{}", rung.text);
}

/// A converter that stops in mid-show, and one that never was.
#[tokio::test(start_paused = true)]
async fn what_is_not_made_is_a_gap_and_what_cannot_be_made_is_refused() {
    let mut packaged = show(Duration::ZERO);
    packaged.run(Duration::from_secs(5)).await;
    join(&mut packaged).await;
    packaged.rung.as_mut().unwrap().is_running = false;
    for _ in 0..8 {
        packaged.run(Duration::from_secs(1)).await;
        checked(&packaged).await;
    }
    let [_, rung] = checked(&packaged).await;
    let newest = rung.segments.last().unwrap();
    assert!(newest.parts.iter().all(|part| part.is_gap), "{}", rung.text);
    for gap in rung.complete().filter(|s| s.is_gap && !s.parts.is_empty()) {
        let parts: Duration = gap.parts.iter().map(|part| part.duration).sum();
        assert_eq!(Some(parts), gap.duration, "{}", rung.text);
    }
    let mut refused = show(Duration::ZERO);
    let rung = refused.rung.as_mut().unwrap();
    rung.is_running = false;
    rung.writer.set_unavailable(Some("no_encoder"));
    refused.run(Duration::from_secs(5)).await;
    let answer = {
        let stream = std::sync::Arc::clone(&refused.stream);
        let asked = stream.playlist(RUNG, Default::default());
        tokio::join!(asked, refused.run(Duration::from_secs(1))).0
    };
    assert!(matches!(answer, Answer::Busy), "{answer:?}");
    refused.lists().await;
}
