//! Recording and replay in virtual time (spec media.md 6.7; I13, I33, I34).

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use lamplight_media::broadcast::EndReason;
use lamplight_media::cue::{At, CueKind, NewCue};
use lamplight_media::hls::{Media, RenditionId};
use lamplight_media::record::{
    self, Backlog, Entry, GapCause, Index, Row, SEGMENTS_MAX, Span, read_rows,
};
use lamplight_media::time::MediaTime;
use tokio::time::Instant;

use crate::support::Form;
use crate::support::Show;
use crate::support::hls::{BOTH, CONFIG, INSTANCE, Packaged, settle};
use crate::support::list::{List, attribute};

pub(crate) const RECORDING: &str = "room_1.abcdefghijkl";

/// What a store took, and the index that was written meanwhile.
#[derive(Default)]
pub(crate) struct Kept {
    pub(crate) objects: BTreeMap<String, Bytes>,
    pub(crate) index: String,
}

impl Kept {
    /// Takes all that waits.
    pub(crate) async fn drain(&mut self, backlog: &mut Backlog) {
        while !backlog.is_empty() {
            let Some(entry) = backlog.next().await else {
                return;
            };
            match entry {
                Entry::Object(stored, row) => {
                    self.objects.insert(stored.key, stored.bytes);
                    self.index += &row.line();
                }
                Entry::Row(row) => self.index += &row.line(),
            }
        }
    }

    pub(crate) fn read(&self) -> Index {
        Index::read(self.index.as_bytes())
    }

    fn replay(&self, rendition: RenditionId) -> List {
        let text = self.read().playlist(INSTANCE, rendition, None);
        List::read(&text.expect("there is a replay"))
    }

    fn rows(&self) -> Vec<Row> {
        read_rows(self.index.as_bytes()).collect()
    }
}

pub(crate) fn recorded() -> (Packaged, Backlog) {
    let (recorder, backlog) = record::queue(RECORDING);
    let show = Show::of(Form { gop: 60, rate: 30 });
    (Packaged::recorded(show, CONFIG, recorder), backlog)
}

pub(crate) fn cue(id: &str, kind: CueKind) -> NewCue {
    NewCue {
        id: id.into(),
        class: "card".into(),
        duration: None,
        kind,
        payload: Bytes::from_static(b"{\"card\":1}"),
    }
}

/// Live lists and replay side by side.
fn check_same(live: &List, replay: &List) {
    let rows = |list: &List| -> Vec<_> {
        let all = list.segments.iter();
        all.map(|s| {
            (
                s.msn,
                s.uri.clone(),
                s.duration,
                s.date,
                s.is_gap,
                s.is_discontinuity,
            )
        })
        .collect()
    };
    assert_eq!(rows(live), rows(replay), "{}\n{}", live.text, replay.text);
    assert!(replay.is_ended);
    assert!(replay.text.contains("#EXT-X-PLAYLIST-TYPE:VOD\n"));
}

#[tokio::test(start_paused = true)]
async fn a_replay_is_the_show_segment_by_segment_and_byte_by_byte() {
    let (mut packaged, mut backlog) = recorded();
    let mut kept = Kept::default();
    packaged.run(Duration::from_millis(9_300)).await;
    packaged.show.leave();
    packaged.wait(Duration::from_millis(5_000)).await;
    packaged.show.come_back();
    packaged.run(Duration::from_millis(9_300)).await;
    packaged.show.finish(EndReason::Finished);
    settle().await;
    kept.drain(&mut backlog).await;
    assert_eq!(backlog.next().await, None, "the recording is over");
    for rendition in BOTH {
        let (live, replay) = (packaged.list(rendition).await, kept.replay(rendition));
        assert_eq!(live.media_sequence, 0, "the window holds the whole show");
        check_same(&live, &replay);
        assert_eq!(replay.breaks().len(), 1, "{}", replay.text);
        assert!(replay.segments.iter().any(|s| s.is_gap), "{}", replay.text);
        for segment in replay.segments.iter().filter(|s| !s.is_gap) {
            for file in [segment.uri.as_ref().unwrap(), &segment.map] {
                let stored = &kept.objects[&record::key(RECORDING, rendition, file)];
                let Media::Found(live) = packaged.media(rendition, file).await else {
                    panic!("{file} is live still");
                };
                assert_eq!(*stored, live, "{file}");
                let size = kept.read().bytes_of(rendition, INSTANCE, file);
                assert_eq!(size, Some(u64::try_from(live.len()).unwrap()));
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_replay_longer_than_the_window_has_the_live_duration_and_every_cue_at_its_t() {
    let (mut packaged, mut backlog) = recorded();
    let mut kept = Kept::default();
    let broadcast = packaged.show.broadcast();
    let mut told = BTreeMap::new();
    for n in 0..30 {
        packaged.run(Duration::from_millis(2_700)).await;
        kept.drain(&mut backlog).await;
        let (id, t) = (format!("cue-{n}"), broadcast.now_t(Instant::now()));
        let kind = [CueKind::Listed, CueKind::Passing][n % 2];
        broadcast
            .cue(Instant::now(), At::Time(t), cue(&id, kind))
            .await
            .unwrap();
        told.insert(id, t.as_micros());
    }
    let closed = broadcast.close_cue(Instant::now(), "cue-4").unwrap();
    packaged.run(Duration::from_millis(2_000)).await;
    packaged.show.finish(EndReason::Finished);
    settle().await;
    kept.drain(&mut backlog).await;
    let lasted = 30 * 2_700 + 2_000;
    let replayed = kept.read().duration().as_millis();
    assert!(
        replayed.abs_diff(lasted) <= 2_000,
        "{replayed} ms of {lasted}"
    );

    let replay = kept.replay(RenditionId::Src);
    let epoch = replay.segments[0].date;
    let mut seen = BTreeMap::new();
    let is_range = |line: &&str| line.starts_with("#EXT-X-DATERANGE");
    for line in replay.text.lines().filter(is_range) {
        let id = attribute(line, "ID").unwrap();
        let date = |name| {
            let text = attribute(line, name)?;
            time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339).ok()
        };
        if let Some(end) = date("END-DATE") {
            let off = (end - epoch).whole_milliseconds() - i128::from(closed.as_micros() / 1_000);
            assert!(id == "cue-4" && off.abs() <= 20, "{line}");
            continue;
        }
        let t_us: i64 = attribute(line, "X-LAMPLIGHT-T").unwrap().parse().unwrap();
        let off = (date("START-DATE").unwrap() - epoch).whole_microseconds() - i128::from(t_us);
        // The clock of the show is slewed by at most 200 millionths.
        assert!(off.abs() <= 20_000, "{line}: {off}");
        seen.insert(id.to_owned(), t_us);
    }
    assert_eq!(seen, told);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_takes_nothing_costs_the_oldest_segments_and_live_goes_on() {
    let (mut packaged, mut backlog) = recorded();
    let gauge = backlog.gauge();
    let mut kept = Kept::default();
    packaged.run(Duration::from_secs(4)).await;
    kept.drain(&mut backlog).await;
    // 100 s of both renditions: 36 segments more than the queue holds.
    packaged.run(Duration::from_secs(100)).await;
    let status = gauge();
    assert_eq!(status.waiting, SEGMENTS_MAX);
    assert!((34..=40).contains(&status.dropped), "{status:?}");
    let stats = packaged.show.hub();
    assert_eq!(stats.stats().total("store_dropped_total"), status.dropped);
    let [src, _] = packaged.lists().await;
    assert!(src.segments.iter().all(|s| !s.is_gap), "{}", src.text);
    packaged.show.finish(EndReason::Finished);
    settle().await;
    kept.drain(&mut backlog).await;
    let rows = kept.rows();
    let is_lost = |row: &&Row| matches!(row, Row::Gap(gap) if gap.cause == GapCause::Store);
    let lost = rows.iter().filter(is_lost).count();
    assert_eq!(u64::try_from(lost).unwrap(), gauge().dropped);
    let replay = kept.replay(RenditionId::Src);
    let gaps: Vec<u64> = replay
        .segments
        .iter()
        .filter(|s| s.is_gap)
        .map(|s| s.msn)
        .collect();
    assert!(gaps.first() <= Some(&3) && gaps.len() >= 16, "{gaps:?}");
    assert!(
        gaps.windows(2).all(|two| two[1] == two[0] + 1),
        "the oldest went: {gaps:?}"
    );
    let lasts = kept.read().duration();
    assert!(
        lasts.abs_diff(Duration::from_secs(104)) <= Duration::from_secs(2),
        "{lasts:?}"
    );
}

/// What kill -9 leaves: rows up to some point, the last one torn.
#[tokio::test(start_paused = true)]
async fn an_index_cut_anywhere_is_a_replay_of_what_came_before() {
    let (mut packaged, mut backlog) = recorded();
    let mut kept = Kept::default();
    packaged.run(Duration::from_secs(9)).await;
    packaged.show.finish(EndReason::Finished);
    settle().await;
    kept.drain(&mut backlog).await;
    let whole = kept.replay(RenditionId::Src);
    let mut longest = 0;
    for cut in 0..kept.index.len() {
        let index = Index::read(&kept.index.as_bytes()[..cut]);
        let Some(text) = index.playlist(INSTANCE, RenditionId::Src, None) else {
            continue;
        };
        let list = List::read(&text);
        assert!(list.segments.len() >= longest, "{cut}");
        longest = list.segments.len();
        for (now, then) in list.segments.iter().zip(&whole.segments) {
            assert_eq!(
                (now.msn, now.duration, now.date),
                (then.msn, then.duration, then.date)
            );
        }
    }
    assert_eq!(longest, whole.segments.len());
}

#[tokio::test(start_paused = true)]
async fn rows_that_are_lost_are_a_gap_of_the_same_length() {
    let (mut packaged, mut backlog) = recorded();
    let mut kept = Kept::default();
    packaged.run(Duration::from_secs(13)).await;
    packaged.show.finish(EndReason::Finished);
    settle().await;
    kept.drain(&mut backlog).await;
    let lines = kept.index.lines();
    let is_lost = |line: &&str| {
        line.contains("src")
            && ["\"msn\":2,", "\"msn\":3,"]
                .iter()
                .any(|m| line.contains(m))
    };
    let rest: Vec<&str> = lines.filter(|line| !is_lost(line)).collect();
    let index = Index::read(rest.join("\n").as_bytes());
    assert_eq!(index.duration(), kept.read().duration());
    let list = List::read(&index.playlist(INSTANCE, RenditionId::Src, None).unwrap());
    let gaps: Vec<u64> = list
        .segments
        .iter()
        .filter(|s| s.is_gap)
        .map(|s| s.msn)
        .collect();
    assert_eq!(gaps, [2, 3], "{}", list.text);
}

#[tokio::test(start_paused = true)]
async fn a_clip_is_whole_segments_and_says_where_it_begins() {
    let (mut packaged, mut backlog) = recorded();
    let mut kept = Kept::default();
    packaged.run(Duration::from_secs(13)).await;
    packaged.show.finish(EndReason::Finished);
    settle().await;
    kept.drain(&mut backlog).await;
    let (index, span) = (kept.read(), Span::new(5_250_000, 8_500_000));
    for rendition in BOTH {
        let list = List::read(&index.playlist(INSTANCE, rendition, span).unwrap());
        let msns: Vec<u64> = list.segments.iter().map(|s| s.msn).collect();
        assert_eq!(
            (msns, list.media_sequence),
            (vec![2, 3, 4], 2),
            "{}",
            list.text
        );
        let start = "#EXT-X-START:TIME-OFFSET=1.25,PRECISE=YES\n";
        assert!(list.text.contains(start), "{}", list.text);
        assert!(!list.segments[0].map.is_empty());
    }
    let beyond = Span::new(60_000_000, 70_000_000);
    assert_eq!(index.playlist(INSTANCE, RenditionId::Src, beyond), None);
    for (from, to) in [(5, 5), (6, 5), (-1, 5)] {
        assert_eq!(Span::new(from, to), None);
    }
    assert!(Span::new(0, MediaTime::MAX.as_micros()).is_some());
}
