//! Silence, and publishers that go away and come back, in LL-HLS (spec media.md 6.6).

use std::time::Duration;

use bytes::Bytes;
use lamplight_media::cue::{At, CueKind, NewCue};
use lamplight_media::hls::{Media, RenditionId};
use lamplight_media::time::MediaTime;
use proptest::prelude::*;
use tokio::time::Instant;

use crate::support::Form;
use crate::support::hls::{BOTH, Converter, Packaged, settle};
use crate::support::list::List;

const HALF: Duration = Duration::from_millis(500);

fn gaps(list: &List) -> Vec<u64> {
    let gaps = list.complete().filter(|s| s.is_gap);
    gaps.map(|s| s.msn).collect()
}

/// Parts without media at the end of the list.
fn gap_parts(list: &List) -> usize {
    let parts = list.segments.iter().flat_map(|s| &s.parts).rev();
    parts.take_while(|p| p.is_gap).count()
}

fn sends(packaged: &mut Packaged, is_sending: bool) {
    packaged.show.sends_picture = is_sending;
    packaged.show.sends_sound = is_sending;
}

/// What is only late is waited for; nothing is invented.
#[tokio::test(start_paused = true)]
async fn a_silence_of_less_than_two_seconds_is_only_late_media() {
    let mut packaged = Packaged::start();
    packaged.run(Duration::from_millis(5_300)).await;
    let before = packaged.lists().await;
    packaged.show.is_cut = true;
    packaged.run(Duration::from_millis(1_900)).await;
    for (now, then) in packaged.lists().await.iter().zip(&before) {
        assert_eq!(now.text, then.text);
    }
    packaged.show.is_cut = false;
    packaged.run(Duration::from_millis(4_000)).await;
    for list in packaged.lists().await {
        assert_eq!(
            (gaps(&list), list.breaks()),
            (vec![], vec![]),
            "{}",
            list.text
        );
        assert_eq!(list.complete().count(), 5, "{}", list.text);
    }
    for rendition in BOTH {
        packaged.media_of(rendition).await;
    }
}

/// After two seconds parts without media come, in all renditions at once, at the pace of T.
#[tokio::test(start_paused = true)]
async fn a_longer_silence_is_listed_as_a_gap_at_the_pace_of_time() {
    let mut packaged = Packaged::start();
    packaged.run(Duration::from_millis(5_300)).await;
    let silent = Instant::now();
    let stream = std::sync::Arc::clone(&packaged.stream);
    // The open part is closed with what it has; the part after it becomes a gap.
    let hints = async |packaged: &Packaged| {
        let [src, aac] = packaged.lists().await;
        [src.hint.unwrap(), aac.hint.unwrap()]
    };
    packaged.wait(Duration::from_millis(1_950)).await;
    for list in packaged.lists().await {
        assert_eq!(gap_parts(&list), 0, "{}", list.text);
    }
    packaged.wait(Duration::from_millis(150)).await;
    for count in 1..=20_usize {
        let lists = packaged.lists().await;
        for list in &lists {
            assert_eq!(
                gap_parts(list),
                count,
                "{:?} {}",
                silent.elapsed(),
                list.text
            );
        }
        let hints = hints(&packaged).await;
        let [src, aac] = [0, 1].map(|n: usize| stream.media(BOTH[n], &hints[n]));
        let (src, aac, ()) = tokio::join!(src, aac, packaged.wait(HALF));
        assert!(matches!((src, aac), (Media::NotFound, Media::NotFound)));
    }
    let [src, aac] = packaged.lists().await;
    assert_eq!(gaps(&src).len(), 5, "{}", src.text);
    assert_eq!(gaps(&src), gaps(&aac));
    assert_eq!(src.breaks(), [] as [u64; 0], "never for a mere gap");
    let first = src.segments.iter().find(|s| s.is_gap).unwrap();
    assert!((5_290..=5_360).contains(&first.start_ms()), "{}", src.text);
    for rendition in BOTH {
        packaged.media_of(rendition).await;
    }
}

/// Media comes back on the same line: a new segment at a keyframe, no discontinuity.
#[tokio::test(start_paused = true)]
async fn media_that_returns_starts_a_new_segment() {
    let mut packaged = Packaged::start();
    packaged.run(Duration::from_millis(5_300)).await;
    sends(&mut packaged, false);
    packaged.run(Duration::from_millis(2_800)).await;
    sends(&mut packaged, true);
    packaged.show.is_key_due = true;
    packaged.run(Duration::from_millis(4_000)).await;
    let [src, aac] = packaged.lists().await;
    assert_eq!(gaps(&src), [3, 4], "{}", src.text);
    assert_eq!(gaps(&aac), [3, 4], "{}", aac.text);
    let back = &src.segments[5];
    assert!((8_090..=8_200).contains(&back.start_ms()), "{}", src.text);
    assert!(back.parts[0].is_independent);
    for list in [&src, &aac] {
        assert_eq!(list.breaks(), [] as [u64; 0], "{}", list.text);
    }
    for rendition in BOTH {
        packaged.media_of(rendition).await;
    }
}

/// The line is cut for three seconds and then delivers everything: what lies in the gap that was
/// declared meanwhile is left out, and the rest waits for a keyframe.
#[tokio::test(start_paused = true)]
async fn frames_for_a_gap_already_declared_are_left_out() {
    let mut packaged = Packaged::start();
    packaged.run(Duration::from_millis(5_300)).await;
    packaged.show.is_cut = true;
    packaged.run(Duration::from_millis(3_000)).await;
    packaged.show.is_cut = false;
    packaged.run(Duration::from_millis(6_000)).await;
    let [src, aac] = packaged.lists().await;
    // Two parts were declared, to 6.3 s; the next keyframe is at 8 s.
    assert_eq!(gaps(&src), [3, 4], "{}", src.text);
    assert_eq!(src.segments[5].start_ms(), 8_000, "{}", src.text);
    // Sound needs no keyframe: it goes on with the segment after those two parts.
    assert_eq!(gaps(&aac), [3], "{}", aac.text);
    assert_eq!(src.breaks(), [] as [u64; 0], "{}", src.text);
    for rendition in BOTH {
        packaged.media_of(rendition).await;
    }
}

/// A publisher away for ten seconds: gaps, then exactly one discontinuity, in both renditions.
#[tokio::test(start_paused = true)]
async fn a_publisher_that_comes_back_is_one_discontinuity() {
    for away_ms in [2_100, 3_700, 10_300, 29_900] {
        let mut packaged = Packaged::start();
        packaged.run(Duration::from_millis(5_300)).await;
        packaged.show.leave();
        packaged.wait(Duration::from_millis(away_ms)).await;
        packaged.show.come_back();
        packaged.run(Duration::from_millis(5_000)).await;
        let [src, aac] = packaged.lists().await;
        assert_eq!(src.breaks().len(), 1, "{}", src.text);
        assert_eq!(src.breaks(), aac.breaks(), "{}", aac.text);
        let back = src.segments.iter().find(|s| s.is_discontinuity).unwrap();
        assert!(!back.is_gap && back.msn > 3, "{}", src.text);
        let began_ms = i128::from(5_300 + away_ms);
        assert!(
            (began_ms - 5..began_ms + 60).contains(&back.start_ms()),
            "{}",
            src.text
        );
        for rendition in BOTH {
            packaged.media_of(rendition).await;
        }
    }
}

/// The publisher comes back with sound first: the discontinuity is where the sound goes on, and
/// there is no second one when the picture follows.
#[tokio::test(start_paused = true)]
async fn sound_that_comes_back_long_before_the_picture_is_one_discontinuity_too() {
    let mut packaged = Packaged::start();
    packaged.run(Duration::from_millis(5_300)).await;
    packaged.show.leave();
    packaged.wait(Duration::from_millis(8_000)).await;
    packaged.show.come_back();
    packaged.show.sends_picture = false;
    packaged.run(Duration::from_millis(7_000)).await;
    packaged.lists().await;
    packaged.show.sends_picture = true;
    packaged.show.is_key_due = true;
    packaged.run(Duration::from_millis(6_000)).await;
    let [src, aac] = packaged.lists().await;
    let real = |list: &List| list.complete().filter(|s| !s.is_gap).count();
    assert!(real(&aac) >= real(&src) + 2, "{}\n{}", src.text, aac.text);
    assert_eq!(src.breaks().len(), 1, "{}", src.text);
    assert_eq!(src.breaks(), aac.breaks());
    for rendition in BOTH {
        packaged.media_of(rendition).await;
    }
}

/// The picture stops and the sound goes on: gaps in `src` only, of the same intervals.
#[tokio::test(start_paused = true)]
async fn a_picture_that_stops_is_a_gap_while_the_sound_goes_on() {
    let mut packaged = Packaged::start();
    packaged.run(Duration::from_millis(5_300)).await;
    packaged.show.sends_picture = false;
    for _ in 0..20 {
        packaged.run(HALF).await;
        packaged.lists().await;
    }
    let [src, aac] = packaged.lists().await;
    assert!(gaps(&src).len() >= 4, "{}", src.text);
    assert_eq!(gaps(&aac), [] as [u64; 0], "{}", aac.text);
    packaged.show.sends_picture = true;
    packaged.show.is_key_due = true;
    packaged.run(Duration::from_secs(4)).await;
    packaged.lists().await;
    packaged.media_of(RenditionId::Src).await;
    packaged.media_of(RenditionId::Aac).await;
}

/// News goes with the sound while there is no picture.
#[tokio::test(start_paused = true)]
async fn sound_carries_cues_while_the_picture_is_away() {
    let mut packaged = Packaged::start();
    packaged.run(Duration::from_millis(5_300)).await;
    packaged.show.sends_picture = false;
    packaged.run(Duration::from_secs(3)).await;
    let cue = NewCue {
        id: "card-1".into(),
        class: "card".into(),
        duration: None,
        kind: CueKind::Passing,
        payload: Bytes::new(),
    };
    let at = At::Time(MediaTime::from_micros(9_000_000));
    let broadcast = packaged.show.broadcast();
    broadcast.cue(Instant::now(), at, cue).await.unwrap();
    packaged.run(Duration::from_secs(4)).await;
    let aac = packaged.list(RenditionId::Aac).await;
    let mut carriers = Vec::new();
    for (segment, part) in aac
        .segments
        .iter()
        .flat_map(|s| s.parts.iter().map(move |p| (s, p)))
    {
        let Media::Found(bytes) = packaged.media(RenditionId::Aac, &part.uri).await else {
            panic!("{part:?} is listed")
        };
        if bytes.windows(6).any(|w| w == b"card-1") {
            carriers.push(segment.start_ms());
        }
    }
    let [start_ms] = carriers[..] else {
        panic!("{carriers:?} in {}", aac.text)
    };
    assert!((7_000..=9_000).contains(&start_ms), "{start_ms}");
}

/// A publisher that comes back is passed through, though its picture was re-encoded before.
#[tokio::test(start_paused = true)]
async fn a_publisher_that_comes_back_is_passed_through_again() {
    let mut packaged = Packaged::of(Form { gop: 300, rate: 30 });
    packaged.clean = Some(Converter::beside(&packaged.show));
    packaged.run(Duration::from_millis(7_000)).await;
    assert_eq!(packaged.list(RenditionId::Src).await.breaks().len(), 1);
    packaged.clean.as_mut().unwrap().is_running = false;
    packaged.show.leave();
    packaged.wait(Duration::from_millis(5_000)).await;
    packaged.show.come_back();
    packaged.show.form.gop = 60;
    let clean = packaged.clean.as_mut().unwrap();
    clean.come_back(2);
    packaged.run(Duration::from_millis(6_000)).await;
    settle().await;
    let [src, _] = packaged.lists().await;
    assert_eq!(src.breaks().len(), 2, "{}", src.text);
    let users = packaged
        .show
        .broadcast()
        .users(lamplight_media::frame::TrackId::Clean);
    assert_eq!(users, 0);
}

/// What happens to a show for a while.
#[derive(Clone, Copy, Debug)]
enum Scene {
    Both,
    PictureOnly,
    SoundOnly,
    Nothing,
    Cut,
    /// A publisher goes away, and comes back with the next scene.
    Away,
    /// Another takes its place.
    Takeover,
}

fn scene() -> impl Strategy<Value = (Scene, u64)> {
    let scene = prop_oneof![
        4 => Just(Scene::Both),
        1 => Just(Scene::PictureOnly),
        1 => Just(Scene::SoundOnly),
        2 => Just(Scene::Nothing),
        2 => Just(Scene::Cut),
        2 => Just(Scene::Away),
        1 => Just(Scene::Takeover),
    ];
    (scene, 1_u64..120)
}

/// Plays scenes; after every tenth of a second the lists follow from those before.
async fn play(gop: i64, scenes: Vec<(Scene, u64)>) {
    let mut packaged = Packaged::of(Form { gop, rate: 30 });
    packaged.run(Duration::from_secs(3)).await;
    let mut before = packaged.lists().await;
    for (scene, tenths) in scenes {
        packaged.show.sends_picture = !matches!(scene, Scene::SoundOnly | Scene::Nothing);
        packaged.show.sends_sound = !matches!(scene, Scene::PictureOnly | Scene::Nothing);
        packaged.show.is_cut = matches!(scene, Scene::Cut);
        match scene {
            Scene::Away => packaged.show.leave(),
            Scene::Takeover => packaged.show.come_back(),
            _ if packaged.show.is_away() => packaged.show.come_back(),
            _ => {}
        }
        for _ in 0..tenths {
            packaged.run(Duration::from_millis(100)).await;
            let now = packaged.lists().await;
            for (now, before) in now.iter().zip(&before) {
                now.check_follows(before);
            }
            before = now;
        }
        for rendition in BOTH {
            packaged.media_of(rendition).await;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    /// Whatever comes or stays away: parts are listed all or none, no list is shorter than three
    /// target durations once it was longer, lists change by appends and removals in order, all
    /// renditions agree, what is listed can be fetched.
    #[test]
    fn lists_obey_their_rules_over_gaps(
        gop in 20_i64..100,
        scenes in proptest::collection::vec(scene(), 1..12),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(play(gop, scenes));
    }
}
