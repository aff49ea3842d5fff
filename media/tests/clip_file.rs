//! A clip as one file, read back box by box (spec media.md 6.7).

use std::time::Duration;

use bytes::Bytes;
use lamplight_media::broadcast::EndReason;
use lamplight_media::cue::{At, CueKind};
use lamplight_media::hls::RenditionId;
use lamplight_media::record::{self, Clip, ClipError, Index, Span};
use lamplight_media::time::MediaTime;
use mp4_atom::{Atom, Decode, Emsg, EmsgTimestamp, Ftyp, Header, Moof, Moov};
use tokio::time::Instant;

use crate::replay::{Kept, RECORDING, cue, recorded};
use crate::support::hls::{CONFIG, INSTANCE, Packaged, settle};
use crate::support::{Form, Show, sound_info};

const VIDEO_RATE: i64 = 90_000;
const SOUND_RATE: i64 = 44_100;

/// A fragment, as it was read.
#[derive(Debug)]
struct Fragment {
    track: u32,
    sequence: u32,
    /// In microseconds.
    begins_us: i64,
    ends_us: i64,
}

/// A clip, read back.
#[derive(Debug)]
struct File {
    moov: Moov,
    fragments: Vec<Fragment>,
    events: Vec<Emsg>,
    filled: usize,
}

impl File {
    fn read(bytes: &[u8]) -> Self {
        let mut rest = bytes;
        Ftyp::decode(&mut rest).expect("as it was written");
        let moov = Moov::decode(&mut rest).expect("as it was written");
        let (mut fragments, mut events, mut filled) = (Vec::new(), Vec::new(), 0);
        while !rest.is_empty() {
            let mut ahead = rest;
            let header = Header::decode(&mut ahead).expect("as it was written");
            let size = header.size.expect("as it was written") + 8;
            let mut whole = &rest[..size];
            match header.kind {
                Moof::KIND => {
                    let moof = Moof::decode(&mut whole).expect("as it was written");
                    fragments.push(fragment(&moof));
                }
                Emsg::KIND => {
                    events.push(Emsg::decode(&mut whole).expect("as it was written"));
                }
                kind if kind == mp4_atom::FourCC::new(b"free") => filled += size,
                kind => assert_eq!(kind, mp4_atom::FourCC::new(b"mdat")),
            }
            rest = &rest[size..];
        }
        Self {
            moov,
            fragments,
            events,
            filled,
        }
    }

    fn of_track(&self, track: u32) -> Vec<&Fragment> {
        let all = self.fragments.iter();
        all.filter(|f| f.track == track).collect()
    }

    /// Fragments of a track follow one another; where they do not, the gaps.
    fn gaps(&self, track: u32) -> Vec<(i64, i64)> {
        let all = self.of_track(track);
        let pairs = all.windows(2);
        let gaps = pairs.map(|two| (two[0].ends_us, two[1].begins_us));
        gaps.filter(|(from, to)| (to - from).abs() > 1_000)
            .collect()
    }
}

fn fragment(moof: &Moof) -> Fragment {
    let [traf] = &moof.traf[..] else {
        panic!("one track a fragment")
    };
    let rate = [VIDEO_RATE, SOUND_RATE]
        [usize::try_from(traf.tfhd.track_id).expect("as it was written") - 1];
    let begins = traf
        .tfdt
        .as_ref()
        .expect("as it was written")
        .base_media_decode_time;
    let samples = traf.trun.iter().flat_map(|run| run.samples.iter());
    let lasts: u64 = samples
        .map(|s| u64::from(s.duration.expect("as it was written")))
        .sum();
    let us = |ticks: u64| i64::try_from(ticks).expect("as it was written") * 1_000_000 / rate;
    Fragment {
        track: traf.tfhd.track_id,
        sequence: moof.mfhd.sequence_number,
        begins_us: us(begins),
        ends_us: us(begins + lasts),
    }
}

/// The clip of a stretch, as the server makes it.
fn open(kept: &Kept, index: &Index, span: Option<Span>) -> Result<Clip, ClipError> {
    let plan = index.clip(INSTANCE, span)?;
    let object = |rendition, file: &str| {
        let key = record::key(RECORDING, rendition, file);
        kept.objects[&key].clone()
    };
    let needs = plan.needs().iter();
    let read: Vec<Bytes> = needs.map(|n| object(n.rendition, &n.file)).collect();
    plan.open(&read)
}

/// The bytes of a file from one on, piece by piece; how many pieces were damaged.
fn bytes_from(kept: &Kept, clip: &Clip, from: u64) -> (Vec<u8>, usize) {
    let head = clip.head().clone();
    let head = head
        .get(usize::try_from(from).expect("as it was written")..)
        .unwrap_or_default();
    let (mut out, mut damaged) = (head.to_vec(), 0);
    loop {
        let at = from + u64::try_from(out.len()).expect("as it was written");
        let Some(piece) = clip.piece_at(at) else {
            assert_eq!(at, clip.bytes());
            return (out, damaged);
        };
        let key = record::key(RECORDING, piece.need.rendition, &piece.need.file);
        let (bytes, whole) = clip.write(&piece, kept.objects[&key].clone());
        assert_eq!(
            u64::try_from(bytes.len()).expect("as it was written"),
            piece.to - piece.from
        );
        damaged += usize::from(whole.is_err());
        out.extend_from_slice(
            &bytes[usize::try_from(at - piece.from).expect("as it was written")..],
        );
    }
}

fn read(kept: &Kept, span: Option<Span>) -> File {
    let clip = open(kept, &kept.read(), span).expect("as it was written");
    File::read(&bytes_from(kept, &clip, 0).0)
}

/// A show that is over, of so many milliseconds.
async fn show_of(ms: u64) -> Kept {
    let (mut packaged, mut backlog) = recorded();
    let mut kept = Kept::default();
    packaged.run(Duration::from_millis(ms)).await;
    packaged.show.finish(EndReason::Finished);
    settle().await;
    kept.drain(&mut backlog).await;
    kept
}

#[tokio::test(start_paused = true)]
async fn a_clip_is_one_file_of_two_tracks_whose_time_begins_at_zero() {
    let kept = show_of(13_000).await;
    let file = read(&kept, Span::new(5_250_000, 8_500_000));
    let ids: Vec<u32> = file.moov.trak.iter().map(|t| t.tkhd.track_id).collect();
    let extends = &file.moov.mvex.as_ref().unwrap().trex;
    let extended: Vec<u32> = extends.iter().map(|t| t.track_id).collect();
    assert_eq!((&ids, &extended), (&vec![1, 2], &vec![1, 2]));
    assert_eq!(file.moov.mvhd.next_track_id, 3);
    // Segments 2, 3 and 4: from 4 s to 10 s.
    for track in [1, 2] {
        let all = file.of_track(track);
        let (first, last) = (all[0], all[all.len() - 1]);
        assert!((0..24_000).contains(&first.begins_us), "{first:?}");
        assert!((last.ends_us - 6_000_000).abs() < 48_000, "{last:?}");
        assert_eq!(file.gaps(track), [], "track {track}");
    }
    let begins = file.fragments.iter().map(|f| f.begins_us).min();
    assert_eq!(begins, Some(0));
    let lasts = file.moov.mvex.as_ref().unwrap().mehd.as_ref().unwrap();
    let lasts = i64::try_from(lasts.fragment_duration).unwrap();
    assert!((lasts - 6 * VIDEO_RATE).abs() < VIDEO_RATE / 20, "{lasts}");
    let sequences: Vec<u32> = file.fragments.iter().map(|f| f.sequence).collect();
    assert!(sequences.is_sorted_by(|a, b| a < b), "{sequences:?}");
}

/// A player that seeks gets, from every byte on, what the whole file has there.
#[tokio::test(start_paused = true)]
async fn any_range_of_a_clip_is_the_same_bytes() {
    let kept = show_of(9_000).await;
    let index = kept.read();
    let clip = open(&kept, &index, None).unwrap();
    let (whole, _) = bytes_from(&kept, &clip, 0);
    assert_eq!(u64::try_from(whole.len()).unwrap(), clip.bytes());
    let head = clip.head().len();
    for from in [
        0,
        1,
        head - 1,
        head,
        head + 1,
        whole.len() / 2,
        whole.len() - 1,
    ] {
        // Opened anew, as another request does.
        let clip = open(&kept, &index, None).unwrap();
        let (rest, _) = bytes_from(&kept, &clip, u64::try_from(from).unwrap());
        assert!(rest == whole[from..], "{from}");
    }
}

#[tokio::test(start_paused = true)]
async fn cues_are_moved_with_the_pictures_they_belong_to() {
    let (mut packaged, mut backlog) = recorded();
    let mut kept = Kept::default();
    packaged.run(Duration::from_millis(7_100)).await;
    let broadcast = packaged.show.broadcast();
    let now = Instant::now();
    let t = broadcast.now_t(now);
    let told = broadcast
        .cue(now, At::Time(t), cue("card-1", CueKind::Listed))
        .await;
    told.unwrap();
    packaged.run(Duration::from_millis(3_000)).await;
    let closed = broadcast.close_cue(Instant::now(), "card-1").unwrap();
    packaged.run(Duration::from_millis(3_000)).await;
    packaged.show.finish(EndReason::Finished);
    settle().await;
    kept.drain(&mut backlog).await;
    let file = read(&kept, Span::new(4_500_000, 12_000_000));
    // The clip begins with the segment at 4 s, or with a frame of sound just before it.
    let expected = [("cue", t), ("cue_end", closed)];
    assert_eq!(file.events.len(), 2);
    for (event, (kind, t)) in file.events.iter().zip(expected) {
        let EmsgTimestamp::Absolute(at) = event.presentation_time else {
            panic!("{event:?}")
        };
        let off = i64::try_from(at).unwrap() - (t.as_micros() - 4_000_000);
        assert!((0..24_000).contains(&off), "{event:?}: {off}");
        let text = event.message_data.iter().position(|b| *b == b'{').unwrap();
        let text: serde_json::Value = serde_json::from_slice(&event.message_data[text..]).unwrap();
        assert_eq!(
            (&text["type"], &text["id"]),
            (&kind.into(), &"card-1".into())
        );
        assert_eq!(text["t_us"], at, "the text tells the same");
    }
}

#[tokio::test(start_paused = true)]
async fn a_gap_is_time_that_passes_without_fragments() {
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
    let file = read(&kept, None);
    for track in [1, 2] {
        let gaps = file.gaps(track);
        let [(from, to)] = gaps[..] else {
            panic!("{gaps:?}")
        };
        assert!((9_200_000..9_400_000).contains(&from), "{gaps:?}");
        assert!((14_200_000..14_500_000).contains(&to), "{gaps:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_clip_without_sound_has_the_picture_alone() {
    let (recorder, mut backlog) = record::queue(RECORDING);
    let show = Show::without_sound(Form { gop: 60, rate: 30 });
    let mut packaged = Packaged::recorded(show, CONFIG, recorder);
    let mut kept = Kept::default();
    packaged.run(Duration::from_secs(9)).await;
    packaged.show.finish(EndReason::Finished);
    settle().await;
    kept.drain(&mut backlog).await;
    let file = read(&kept, None);
    assert_eq!(file.moov.trak.len(), 1);
    assert_eq!(file.of_track(1).len(), file.fragments.len());
}

/// Without the picture: what is left of a store that lost its rows.
#[tokio::test(start_paused = true)]
async fn a_segment_of_one_track_alone_leaves_the_other_whole() {
    let mut kept = show_of(13_000).await;
    let lines = kept.index.lines();
    let is_lost = |line: &&str| line.contains("\"aac\"") && line.contains("\"msn\":3,");
    let rest: Vec<&str> = lines.filter(|line| !is_lost(line)).collect();
    kept.index = rest.join("\n");
    let file = read(&kept, None);
    assert_eq!(file.gaps(1), []);
    let gaps = file.gaps(2);
    let [(from, to)] = gaps[..] else {
        panic!("{gaps:?}")
    };
    assert!((from - 6_000_000).abs() < 48_000 && (to - 8_000_000).abs() < 48_000);
}

#[tokio::test(start_paused = true)]
async fn a_clip_in_which_the_sound_changes_is_refused_with_where_it_does() {
    let (mut packaged, mut backlog) = recorded();
    let mut kept = Kept::default();
    packaged.run(Duration::from_millis(4_700)).await;
    let publisher = packaged.show.publisher();
    publisher
        .set_track(Instant::now(), sound_info(48_000))
        .unwrap();
    packaged.run(Duration::from_secs(8)).await;
    packaged.show.finish(EndReason::Finished);
    settle().await;
    kept.drain(&mut backlog).await;
    let index = kept.read();
    let rendition = RenditionId::Aac;
    let refused = index.clip(INSTANCE, None).unwrap_err();
    let ClipError::Changes { at, .. } = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(refused, ClipError::Changes { rendition, at });
    let (before, after) = (at.as_micros() - 1, at.as_micros());
    assert!(open(&kept, &index, Span::new(0, before)).is_ok());
    assert!(open(&kept, &index, Span::new(after, i64::MAX)).is_ok());
    assert!(index.clip(INSTANCE, Span::new(before, after + 1)).is_err());
}

/// HEVC of a long GOP is cut within it: the clip begins at the keyframe before.
#[tokio::test(start_paused = true)]
async fn a_clip_begins_at_the_keyframe_before_its_first_segment() {
    let mut kept = show_of(13_000).await;
    let mut lines = Vec::new();
    for line in kept.index.lines() {
        let mut row: serde_json::Value = serde_json::from_str(line).unwrap();
        if row["rendition"] == "src" && [2, 3].map(Into::into).contains(&row["msn"]) {
            row["keyframes"] = serde_json::json!([]);
        }
        lines.push(row.to_string());
    }
    kept.index = lines.join("\n");
    let file = read(&kept, Span::new(6_500_000, 7_500_000));
    // Segments 1, 2 and 3.
    let lasts = file.moov.mvex.unwrap().mehd.unwrap().fragment_duration;
    let lasts = i64::try_from(lasts).unwrap();
    assert!((lasts - 6 * VIDEO_RATE).abs() < VIDEO_RATE / 20, "{lasts}");
}

#[tokio::test(start_paused = true)]
async fn a_damaged_segment_is_a_gap_of_the_same_size() {
    let mut kept = show_of(13_000).await;
    let clip = open(&kept, &kept.read(), None).unwrap();
    let (whole, _) = bytes_from(&kept, &clip, 0);
    let key = record::key(RECORDING, RenditionId::Src, "abcdefghijkl-s3.m4s");
    let segment = kept.objects[&key].clone();
    let mut broken = segment.to_vec();
    broken[6] = b'?';
    for damaged in [
        broken.into(),
        segment.slice(..segment.len() / 2),
        Bytes::new(),
    ] {
        kept.objects.insert(key.clone(), damaged);
        let (bytes, damaged) = bytes_from(&kept, &clip, 0);
        assert_eq!((bytes.len(), damaged), (whole.len(), 1));
        let file = File::read(&bytes);
        assert_eq!(file.filled, segment.len());
        assert_eq!((file.gaps(1).len(), file.gaps(2).len()), (1, 0));
    }
    let first = record::key(RECORDING, RenditionId::Src, "abcdefghijkl-s0.m4s");
    kept.objects.insert(first, Bytes::from_static(b"rubbish"));
    let refused = open(&kept, &kept.read(), None).unwrap_err();
    assert!(matches!(refused, ClipError::Damaged(_)), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn a_clip_has_media_and_an_end() {
    let mut kept = show_of(5_000).await;
    let beyond = Span::new(60_000_000, 70_000_000);
    let refused = kept.read().clip(INSTANCE, beyond).unwrap_err();
    assert_eq!(refused, ClipError::Nothing);
    // Seven hours later there is one more segment.
    let last = kept
        .index
        .lines()
        .rfind(|line| line.contains("\"segment\""));
    let mut row: serde_json::Value = serde_json::from_str(last.unwrap()).unwrap();
    row["rendition"] = "src".into();
    row["msn"] = 12_600.into();
    row["t_us"] = MediaTime::from_micros(7 * 3_600_000_000).as_micros().into();
    row["init"] = 0.into();
    kept.index += &row.to_string();
    let index = kept.read();
    assert_eq!(index.clip(INSTANCE, None).unwrap_err(), ClipError::TooLong);
    assert!(index.clip(INSTANCE, Span::new(0, 3_600_000_000)).is_ok());
}
