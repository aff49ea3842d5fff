//! The list that reaches farther back than the live one (spec media.md 6.6).

use std::time::Duration;

use lamplight_media::broadcast::EndReason;
use lamplight_media::cue::{At, CueKind};
use lamplight_media::hls::{Answer, Directives, HlsConfig, List as Which, Media, RenditionId};
use lamplight_media::record;
use tokio::time::Instant;

use crate::replay::{Kept, RECORDING, cue};
use crate::support::hls::{BOTH, CONFIG, INSTANCE, Packaged, settle, text};
use crate::support::list::List;
use crate::support::{Form, Show};

const DVR: Duration = Duration::from_secs(120);
const FAR: HlsConfig = HlsConfig { dvr: DVR, ..CONFIG };

fn started() -> (Packaged, record::Backlog) {
    let (recorder, backlog) = record::queue(RECORDING);
    let show = Show::of(Form { gop: 60, rate: 30 });
    (Packaged::recorded(show, FAR, recorder), backlog)
}

async fn far(packaged: &Packaged, rendition: RenditionId, query: &str) -> String {
    let directives = Directives::parse(query).expect("good directives");
    text(
        &packaged
            .stream
            .list(Which::Dvr, rendition, directives)
            .await,
    )
}

/// Sequence number, name and what is said of it.
type Row = (u64, Option<String>, Option<Duration>, bool, bool);

fn rows(list: &List) -> Vec<Row> {
    let all = list.segments.iter();
    all.map(|s| {
        (
            s.msn,
            s.uri.clone(),
            s.duration,
            s.is_gap,
            s.is_discontinuity,
        )
    })
    .collect()
}

#[tokio::test(start_paused = true)]
async fn it_is_the_live_list_with_what_came_before_and_all_of_it_can_be_fetched() {
    let (mut packaged, mut backlog) = started();
    let mut kept = Kept::default();
    for _ in 0..10 {
        packaged.run(Duration::from_secs(10)).await;
        kept.drain(&mut backlog).await;
    }
    for rendition in BOTH {
        let live = packaged.list(rendition).await;
        let list = List::read(&far(&packaged, rendition, "").await);
        list.check();
        assert_eq!((list.media_sequence, list.segments[0].msn), (0, 0));
        let before = usize::try_from(live.media_sequence).unwrap();
        assert!(before >= 25, "{}", live.text);
        assert_eq!(rows(&list)[before..], rows(&live));
        assert!(list.text.ends_with(
            &live.text[live.text.find("#EXT-X-PART:").unwrap()..].replace("live.m3u8", "dvr.m3u8")
        ));
        for segment in &list.segments[..before] {
            let (uri, map) = (segment.uri.as_ref().unwrap(), &segment.map);
            for file in [uri, map] {
                let is_here = matches!(packaged.media(rendition, file).await, Media::Found(_));
                let is_there = packaged.stream.is_in_store(rendition, file);
                let key = record::key(RECORDING, rendition, file);
                assert!(
                    is_here || is_there && kept.objects.contains_key(&key),
                    "{file}"
                );
            }
        }
    }
    let never = format!("{INSTANCE}-s4000.m4s");
    assert!(!packaged.stream.is_in_store(RenditionId::Src, &never));
}

#[tokio::test(start_paused = true)]
async fn it_is_as_long_as_it_may_be_and_leaves_in_order() {
    let (mut packaged, _backlog) = started();
    packaged.run(Duration::from_secs(200)).await;
    let mut before = List::read(&far(&packaged, RenditionId::Src, "").await);
    for _ in 0..6 {
        packaged.run(Duration::from_millis(1_900)).await;
        let list = List::read(&far(&packaged, RenditionId::Src, "").await);
        let lasts: Duration = list.segments.iter().filter_map(|s| s.duration).sum();
        assert!(
            (DVR..DVR + Duration::from_secs(3)).contains(&lasts),
            "{lasts:?}"
        );
        let gone = usize::try_from(list.media_sequence - before.media_sequence).unwrap();
        assert!(gone <= 2);
        let (old, new) = (rows(&before), rows(&list));
        let same = old.len() - gone - 1;
        assert_eq!(
            old[gone..gone + same],
            new[..same],
            "the last may have been open"
        );
        before = list;
    }
}

#[tokio::test(start_paused = true)]
async fn a_delta_of_it_is_as_short_as_one_of_the_live_list_and_is_waited_for() {
    let (mut packaged, _backlog) = started();
    packaged.run(Duration::from_secs(100)).await;
    let whole = List::read(&far(&packaged, RenditionId::Src, "").await);
    for skip in ["YES", "v2"] {
        let delta = far(&packaged, RenditionId::Src, &format!("_HLS_skip={skip}")).await;
        let live = text(
            &packaged
                .answer(RenditionId::Src, &format!("_HLS_skip={skip}"))
                .await,
        );
        let skipped = |text: &str| {
            let line = text
                .lines()
                .find_map(|l| l.strip_prefix("#EXT-X-SKIP:SKIPPED-SEGMENTS="));
            line.and_then(|n| n.parse::<usize>().ok()).unwrap()
        };
        let listed = delta.matches("#EXTINF").count();
        assert_eq!(listed, live.matches("#EXTINF").count());
        let complete = whole.segments.iter().filter(|s| s.uri.is_some()).count();
        assert_eq!(skipped(&delta) + listed, complete, "{delta}");
        assert!(skipped(&delta) > skipped(&live) + 25);
    }
    let next = whole.segments.last().unwrap().msn + 1;
    let stream = std::sync::Arc::clone(&packaged.stream);
    let directives = Directives::parse(&format!("_HLS_msn={next}&_HLS_part=0")).unwrap();
    let held = stream.list(Which::Dvr, RenditionId::Src, directives);
    let (answer, ()) = tokio::join!(held, packaged.run(Duration::from_secs(3)));
    assert!(text(&answer).contains("#EXT-X-PRELOAD-HINT"));
    assert!(matches!(answer, Answer::Playlist { was_held: true, .. }));
    let beyond = Directives::parse(&format!("_HLS_msn={}", next + 9)).unwrap();
    let beyond = packaged
        .stream
        .list(Which::Dvr, RenditionId::Src, beyond)
        .await;
    assert!(matches!(beyond, Answer::Bad(_)), "{beyond:?}");
}

#[tokio::test(start_paused = true)]
async fn discontinuities_gaps_and_cues_stay_in_it_until_their_segment_leaves() {
    let (mut packaged, _backlog) = started();
    packaged.run(Duration::from_millis(9_300)).await;
    let broadcast = packaged.show.broadcast();
    let t = broadcast.now_t(Instant::now());
    let mut passed = cue("passed", CueKind::Listed);
    passed.duration = Some(Duration::from_secs(1));
    broadcast
        .cue(Instant::now(), At::Time(t), passed)
        .await
        .unwrap();
    packaged.run(Duration::from_millis(300)).await;
    packaged.show.leave();
    packaged.wait(Duration::from_millis(5_000)).await;
    packaged.show.come_back();
    packaged.run(Duration::from_secs(70)).await;
    for rendition in BOTH {
        let live = packaged.list(rendition).await;
        assert_eq!((live.discontinuity_sequence, live.breaks().len()), (1, 0));
        assert!(!live.text.contains("\"passed\""));
        let list = List::read(&far(&packaged, rendition, "").await);
        assert_eq!((list.discontinuity_sequence, list.breaks().len()), (0, 1));
        assert!(list.segments.iter().any(|s| s.is_gap), "{}", list.text);
        assert!(
            list.text.contains("DATERANGE:ID=\"passed\""),
            "{}",
            list.text
        );
    }
    packaged.run(Duration::from_secs(70)).await;
    for rendition in BOTH {
        let text = far(&packaged, rendition, "").await;
        let list = List::read(&text);
        assert_eq!(
            (list.discontinuity_sequence, list.breaks().len()),
            (1, 0),
            "{text}"
        );
        assert!(!text.contains("\"passed\""), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_store_did_not_take_is_a_gap_once_it_has_left_the_live_list() {
    let (mut packaged, _backlog) = started();
    packaged.run(Duration::from_secs(20)).await;
    let src = RenditionId::Src;
    packaged.stream.lose(src, 4);
    let gaps = |text: &str| -> Vec<u64> {
        let list = List::read(text);
        let gaps = list.segments.iter().filter(|s| s.is_gap);
        gaps.map(|s| s.msn).collect()
    };
    assert_eq!(
        gaps(&far(&packaged, src, "").await),
        [0; 0],
        "it can be fetched"
    );
    packaged.run(Duration::from_secs(60)).await;
    assert_eq!(gaps(&far(&packaged, src, "").await), [4]);
    packaged.stream.lose(src, 6);
    assert_eq!(gaps(&far(&packaged, src, "").await), [4, 6]);
    let lost = format!("{INSTANCE}-s6.m4s");
    assert!(!packaged.stream.is_in_store(src, &lost));
}

#[tokio::test(start_paused = true)]
async fn it_lists_what_is_recorded_and_ends_with_the_show() {
    let (mut packaged, _backlog) = started();
    packaged.run(Duration::from_secs(60)).await;
    let lists = packaged
        .stream
        .multivariant_of(Which::Dvr, Some("s1"))
        .await;
    let lists = text(&lists);
    assert!(lists.contains("src/dvr.m3u8?s=s1") && lists.contains("aac/dvr.m3u8?s=s1"));
    packaged.show.finish(EndReason::Finished);
    settle().await;
    let over = far(&packaged, RenditionId::Src, "_HLS_msn=900").await;
    assert!(over.ends_with("#EXT-X-ENDLIST\n"), "{over}");
    assert!(over.contains("#EXT-X-MEDIA-SEQUENCE:0\n"), "{over}");
    let rung = Directives::default();
    let rung = packaged
        .stream
        .list(Which::Dvr, RenditionId::Rung(240), rung)
        .await;
    assert!(matches!(rung, Answer::NotFound));
}

#[tokio::test(start_paused = true)]
async fn without_a_recording_there_is_none() {
    let mut packaged = Packaged::start();
    packaged.run(Duration::from_secs(60)).await;
    let none = packaged.stream.multivariant_of(Which::Dvr, None).await;
    assert!(matches!(none, Answer::NotFound));
    let directives = Directives::default();
    let none = packaged
        .stream
        .list(Which::Dvr, RenditionId::Src, directives)
        .await;
    assert!(matches!(none, Answer::NotFound));
}
