//! What FLV viewers are sent of HEVC, AV1 and Opus reads back as what was published.

use std::sync::Arc;

use bytes::Bytes;
use lamplight_media::bitstream::opus;
use lamplight_media::broadcast::{BroadcastKey, Broadcasts, Limits};
use lamplight_media::flv::Demuxer;
use lamplight_media::flv::viewer::Terms;
use lamplight_media::frame::{Frame, Kind, Sample, TrackId, TrackInfo};
use time::OffsetDateTime;
use tokio::time::Instant;

use crate::support::enhanced::{Feed, av1_bodies, hevc_bodies};
use crate::support::flv::{Seat, Tag, assert_forward, headers, held};

const PICTURES: u32 = 60;
/// Of the shows here.
const GOP: u32 = 20;
/// A frame of 20 ms of silence.
const SILENCE: &[u8] = b"\x91Opus\xfc\xff\xfe";

/// Plays bodies of a keyframe and of what comes after it, and reads along: all that was sent.
async fn watched(feed: &mut Feed, hub: &Arc<Broadcasts>, of: [&[Bytes]; 2]) -> Vec<Tag> {
    let terms = Terms {
        takes_opus: true,
        ..Terms::default()
    };
    let mut seat = Seat::take_of(hub, feed.publisher.broadcast(), terms);
    let mut tags = Vec::new();
    for n in 0..PICTURES {
        let bodies = if n % GOP == 0 { of[0] } else { of[1] };
        let at = usize::try_from(n).expect("a small number") % bodies.len();
        feed.push(Kind::Video, n * 40, bodies[at].clone());
        for half in [0, 20] {
            let sound = Bytes::from_static(SILENCE);
            feed.push(Kind::Audio, n * 40 + half, sound);
        }
        // Takes the 40 ms until the next.
        let (more, goes_on) = seat.read().await;
        assert!(goes_on);
        tags.extend(more);
    }
    tags
}

/// What a demuxer makes of the tags of a track: its parameters and frames.
fn read_back(tags: &[Tag], kind: Kind) -> (TrackInfo, Vec<(u32, Sample)>) {
    let mut demuxer = Demuxer::new();
    let (mut info, mut samples) = (None, Vec::new());
    let of_kind = if kind == Kind::Video { 9 } else { 8 };
    for tag in tags.iter().filter(|tag| tag.kind == of_kind) {
        let units = demuxer.push(Instant::now(), kind, tag.ms, tag.body.clone());
        let units = units.expect("our own tags are in order");
        info = units.track.or(info);
        samples.extend(units.sample.map(|sample| (tag.ms, sample)));
    }
    (info.expect("a header was sent"), samples)
}

fn assert_equal(read: &(u32, Sample), frame: &Frame) {
    let (ms, sample) = read;
    assert_eq!(i64::from(*ms), frame.dts.as_micros() / 1_000);
    let composition = sample.composition.as_micros().try_into();
    assert_eq!(
        composition,
        Ok(frame.pts.as_micros() - frame.dts.as_micros())
    );
    let facts = (sample.is_key, sample.is_discardable, &sample.payload);
    assert_eq!(
        facts,
        (frame.is_key, frame.is_discardable, &frame.payload),
        "at {ms} ms"
    );
}

#[tokio::test(start_paused = true)]
async fn tags_of_hevc_av1_and_opus_read_back_as_the_frames_that_were_published() {
    let [hevc_head, hevc_key, hevc_inter] = hevc_bodies();
    // The same picture, shown later than it is decoded: another packet type.
    let later = [b"\xa1hvc1\x00\x00\x50", &hevc_inter[5..]].concat();
    let [av1_head, av1_key, av1_inter] = av1_bodies();
    let rows = [
        (hevc_head, hevc_key, vec![hevc_inter, later.into()]),
        (av1_head, av1_key, vec![av1_inter]),
    ];
    for (header, key, inter) in rows {
        let hub = Broadcasts::new(Limits::default());
        let key_of = BroadcastKey::new("room_1");
        let opened = hub.open(key_of, Instant::now(), OffsetDateTime::UNIX_EPOCH);
        let mut feed = Feed {
            demuxer: Demuxer::new(),
            publisher: opened.expect("the hub is empty"),
        };
        feed.push(Kind::Video, 0, header);
        let head = [b"\x90Opus", &opus::head(2)[..]].concat();
        feed.push(Kind::Audio, 0, head.into());
        let tags = watched(&mut feed, &hub, [&[key], &inter]).await;
        assert_eq!(headers(&tags), [8, 9]);
        assert_forward(&tags);
        let broadcast = feed.publisher.broadcast();
        let tracks = [(Kind::Video, TrackId::Video), (Kind::Audio, TrackId::Audio)];
        for (kind, track) in tracks {
            let (info, samples) = read_back(&tags, kind);
            let source = broadcast.source(kind).unwrap();
            assert!(source.is_same_format(&info), "{source:?} became {info:?}");
            let frames = held(broadcast, track);
            assert!(frames.len() >= PICTURES.try_into().unwrap());
            assert_eq!(samples.len(), frames.len(), "{track}");
            for (sample, frame) in samples.iter().zip(&frames) {
                assert_equal(sample, frame);
            }
        }
    }
}
