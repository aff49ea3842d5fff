//! Playlists and waiting, in virtual time.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use time::OffsetDateTime;
use tokio::time::Instant;

use super::{CONFIG, Show, text};
use crate::cue::{At, CueKind, NewCue};
use crate::hls::window::Opening;
use crate::hls::{Answer, Directives, Held, Media, RenditionId, Stream};
use crate::time::MediaTime;

#[tokio::test(start_paused = true)]
async fn a_show_of_seven_seconds_looks_like_this() {
    let mut show = Show::start();
    show.run(200).await;
    insta::assert_snapshot!(
        "multivariant",
        text(&show.stream.multivariant(Some("s1")).await)
    );
    insta::assert_snapshot!("src", show.playlist(RenditionId::Src, "").await);
    insta::assert_snapshot!("aac", show.playlist(RenditionId::Aac, "").await);
}

#[tokio::test(start_paused = true)]
async fn a_v2_delta_leaves_out_old_date_ranges_and_names_those_that_left() {
    let mut show = Show::start();
    show.run(30).await;
    for (id, duration) in [("short", Some(Duration::from_secs(1))), ("open", None)] {
        let cue = NewCue {
            id: id.into(),
            class: "card".into(),
            duration,
            kind: CueKind::Listed,
            payload: Bytes::new(),
        };
        let at = At::Time(MediaTime::from_micros(500_000));
        let broadcast = show.publisher.as_ref().unwrap().broadcast();
        broadcast.cue(Instant::now(), at, cue).await.unwrap();
    }
    let ids = |text: &str| {
        ["short", "open"].map(|id| text.contains(&format!("EXT-X-DATERANGE:ID=\"{id}\"")))
    };
    // Both are young, however little there is to skip.
    show.run(30 * 20).await;
    let young = show.playlist(RenditionId::Src, "_HLS_skip=v2").await;
    assert_eq!(ids(&young), [true, true], "{young}");
    show.run(30 * 15).await;
    let old = show.playlist(RenditionId::Src, "_HLS_skip=v2").await;
    assert_eq!(ids(&old), [false, false], "{old}");
    assert!(!old.contains("RECENTLY-REMOVED"), "{old}");
    let plain = show.playlist(RenditionId::Src, "_HLS_skip=YES").await;
    assert_eq!(ids(&plain), [true, true], "{plain}");
    // The first segment has left the list, and the short one with it.
    show.run(30 * 12).await;
    let left = show.playlist(RenditionId::Src, "_HLS_skip=v2").await;
    let names = "RECENTLY-REMOVED-DATERANGES=\"short\"\n";
    assert!(left.contains(names), "{left}");
    let plain = show.playlist(RenditionId::Src, "_HLS_skip=YES").await;
    assert_eq!(ids(&plain), [false, true], "{plain}");
    show.run(30 * 25).await;
    let gone = show.playlist(RenditionId::Src, "_HLS_skip=v2").await;
    assert!(!gone.contains("RECENTLY-REMOVED"), "{gone}");
}

#[tokio::test(start_paused = true)]
async fn old_segments_are_skipped_on_request_and_leave_in_order() {
    let mut show = Show::start();
    show.run(30 * 70).await;
    let whole = show.playlist(RenditionId::Src, "").await;
    let delta = show.playlist(RenditionId::Src, "_HLS_skip=YES").await;
    let skipped: usize = delta
        .lines()
        .find_map(|l| l.strip_prefix("#EXT-X-SKIP:SKIPPED-SEGMENTS="))
        .and_then(|n| n.parse().ok())
        .unwrap();
    let count = |text: &str| text.matches("#EXTINF").count();
    assert_eq!(count(&delta) + skipped, count(&whole));
    assert!(
        (20..=22).contains(&count(&whole)),
        "the window is 40 s: {}",
        count(&whole)
    );
    assert!(whole.contains("#EXT-X-MEDIA-SEQUENCE:1"), "{whole}");
    assert!(delta.len() < whole.len());
}

#[tokio::test(start_paused = true)]
async fn what_is_listed_can_be_fetched_and_parts_make_the_segment() {
    let mut show = Show::start();
    show.run(220).await;
    let list = show.playlist(RenditionId::Src, "").await;
    let uri = |line: &str| {
        line.split("URI=\"")
            .nth(1)?
            .split('"')
            .next()
            .map(str::to_owned)
    };
    let mut parts = Vec::new();
    for line in list.lines() {
        if line.starts_with("#EXT-X-PART:") || line.starts_with("#EXT-X-MAP") {
            let name = uri(line).unwrap();
            let Media::Found(bytes) = show.stream.media(RenditionId::Src, &name).await else {
                panic!("{name} is listed")
            };
            if line.starts_with("#EXT-X-PART:") {
                parts.extend(bytes);
            }
        } else if !line.starts_with('#') {
            let Media::Found(bytes) = show.stream.media(RenditionId::Src, line).await else {
                panic!("{line} is listed")
            };
            assert_eq!(bytes, std::mem::take(&mut parts), "{line}");
        }
    }
    for strange in [
        "abcdefghijkl-p9999.m4s",
        "other-p1.m4s",
        "../x",
        "abcdefghijkl-p01.m4s",
        "",
    ] {
        let got = show.stream.media(RenditionId::Src, strange).await;
        assert!(matches!(got, Media::NotFound), "{strange}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_for_the_next_part_is_held_until_it_is_there() {
    let mut show = Show::start();
    show.run(100).await;
    let list = show.playlist(RenditionId::Src, "").await;
    let parts = list.matches("#EXT-X-PART:").count();
    let stream = Arc::clone(&show.stream);
    // 100 pictures: segment 1 is open with two parts.
    let asked = Directives::parse("_HLS_msn=1&_HLS_part=2").unwrap();
    let mut held = std::pin::pin!(stream.playlist(RenditionId::Src, asked));
    let early = tokio::time::timeout(Duration::from_millis(1), &mut held).await;
    assert!(early.is_err(), "nothing is sent early");
    show.run(20).await;
    let answer = text(&held.await);
    assert_eq!(answer.matches("#EXT-X-PART:").count(), parts + 1);
}

#[tokio::test(start_paused = true)]
async fn a_hinted_part_is_held_and_others_are_not() {
    let mut show = Show::start();
    show.run(100).await;
    let list = show.playlist(RenditionId::Src, "").await;
    let hint = list
        .split("TYPE=PART,URI=\"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    let stream = Arc::clone(&show.stream);
    let mut held = std::pin::pin!(stream.media(RenditionId::Src, hint));
    assert!(
        tokio::time::timeout(Duration::from_millis(1), &mut held)
            .await
            .is_err()
    );
    show.run(20).await;
    assert!(matches!(held.await, Media::Found(_)));
}

#[tokio::test(start_paused = true)]
async fn requests_that_cannot_be_met_are_answered_at_once() {
    let mut show = Show::start();
    show.run(100).await;
    for (query, expected) in [
        ("_HLS_msn=9", "Bad"),
        ("_HLS_msn=1&_HLS_part=40", "Bad"),
        ("_HLS_msn=0", "#EXTM3U"),
        ("_HLS_msn=0&_HLS_part=99", "#EXTM3U"),
    ] {
        let got = show.playlist(RenditionId::Src, query).await;
        assert!(got.starts_with(expected), "{query}: {got}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_held_for_three_target_durations_is_given_up() {
    // Nobody packages anything.
    let stream = Stream::new("abcdefghijkl", CONFIG, Held::default());
    let begun = Instant::now();
    let answer = stream.multivariant(None).await;
    assert!(matches!(answer, Answer::Busy));
    assert_eq!(begun.elapsed().as_secs(), 12);
}

/// A list that begins with a gap: the init section is named where the first media uses it, in a
/// delta too.
#[tokio::test(start_paused = true)]
async fn an_init_section_is_named_once_there_is_one() {
    let stream = Stream::new("abcdefghijkl", CONFIG, Held::default());
    stream.show(RenditionId::Src);
    let at = |n: i64| MediaTime::from_micros(n * 2_000_000);
    for n in 0..20 {
        stream.edit(RenditionId::Src, |window| {
            let is_gap = n < 3;
            if !is_gap {
                window.set_init(Bytes::from_static(b"init"));
            }
            window.begin(Opening {
                start: at(n),
                shown_from: at(n),
                wall: OffsetDateTime::UNIX_EPOCH,
                is_discontinuity: false,
                is_gap,
            });
            let bytes = Bytes::from_static(if is_gap { b"" } else { b"x" });
            window.append(Duration::from_secs(2), true, bytes);
            window.end(Instant::now(), at(n + 1));
        });
        let asked = [
            Directives::default(),
            Directives::parse("_HLS_skip=YES").unwrap(),
        ];
        for asked in asked {
            let list = text(&stream.playlist(RenditionId::Src, asked).await);
            let maps = list.matches("#EXT-X-MAP").count();
            let is_skipped = list.contains("SKIPPED-SEGMENTS=") && !list.contains("-s3.m4s");
            assert_eq!(maps, usize::from(n >= 3 && !is_skipped), "{list}");
            let map = list.find("#EXT-X-MAP").unwrap_or(0);
            let gap = list.rfind("#EXT-X-GAP").unwrap_or(0);
            assert!(maps == 0 || map > gap, "{list}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_completes_the_last_segment_and_hints_at_nothing() {
    let mut show = Show::start();
    show.run(100).await;
    drop(show.publisher.take());
    show.packager.await.unwrap();
    let asked = Directives::parse("_HLS_msn=99").unwrap();
    let last = text(&show.stream.playlist(RenditionId::Src, asked).await);
    assert!(last.ends_with("#EXT-X-ENDLIST\n"), "{last}");
    assert!(!last.contains("PRELOAD-HINT"));
    assert_eq!(last.matches("#EXTINF").count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_cue_is_a_date_range_at_once_and_rides_in_the_part_that_shows_it() {
    let mut show = Show::start();
    show.run(100).await;
    let broadcast = Arc::clone(show.publisher.as_ref().unwrap().broadcast());
    let t = MediaTime::from_micros(3_600_000);
    let cue = NewCue {
        id: "card-1".into(),
        class: "card".into(),
        duration: None,
        kind: CueKind::Listed,
        payload: Bytes::from_static(b"{\"a\":1}"),
    };
    broadcast
        .cue(Instant::now(), At::Time(t), cue)
        .await
        .unwrap();
    show.run(1).await;
    for rendition in [RenditionId::Src, RenditionId::Aac] {
        let list = show.playlist(rendition, "").await;
        assert!(
            list.contains("ID=\"card-1\",CLASS=\"lamplight.card\""),
            "{list}"
        );
        assert!(list.contains("X-LAMPLIGHT-T=\"3600000\",X-LAMPLIGHT-DATA=\"eyJhIjoxfQ\""));
    }
    show.run(60).await;
    let mut carriers = Vec::new();
    for n in 0..10 {
        let name = format!("abcdefghijkl-p{n}.m4s");
        if let Media::Found(bytes) = show.stream.media(RenditionId::Src, &name).await
            && bytes.windows(4).any(|w| w == b"emsg")
        {
            carriers.push(n);
            let text = String::from_utf8_lossy(&bytes);
            assert!(text.contains("lamplight/cue/1"));
            assert!(text.contains("\"t_us\":3600000"));
        }
    }
    assert_eq!(carriers, [7], "3.6 s is in the eighth half second");
}
