//! What FLV viewers are sent when the show changes under them: other parameters, a rung that is
//! lost.

use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use lamplight_media::broadcast::TrackWriter;
use lamplight_media::flv::viewer::Terms;
use lamplight_media::frame::{Frame, Shape, TrackId, TrackInfo};
use lamplight_media::whep::Rendition;
use tokio::time::Instant;

use crate::support::flv::{MERGE, Seat, Tag, assert_forward, headers, held};
use crate::support::{Show, picture_info, sound_info};

const SECOND: Duration = Duration::from_secs(1);
const RUNG: u16 = 240;
/// The pictures of the rung, to tell them from those of the source.
const RUNG_NAL: &[u8] = &[0, 0, 0, 3, 0x65, 7, 7];

/// 1280x720 of the baseline profile.
fn other_picture() -> TrackInfo {
    let config: &[u8] = &[
        1, 0x42, 0xc0, 0x1f, 0xff, 0xe1, 0, 15, 0x67, 0x42, 0xc0, 0x1f, 0xda, 0x02, 0x80, 0xbf,
        0xe5, 0x84, 0, 0, 0x03, 0, 0x04, 1, 0, 4, 0x68, 0xce, 0x3c, 0x80,
    ];
    TrackInfo {
        shape: Shape::Video {
            width: 1_280,
            height: 720,
        },
        config: Bytes::from_static(config),
        ..picture_info()
    }
}

/// Reads along while the show runs.
async fn follow(show: &mut Show, seat: &mut Seat, time: Duration, tags: &mut Vec<Tag>) {
    let until = Instant::now() + time;
    while Instant::now() < until {
        show.run(SECOND / 10).await;
        let (more, goes_on) = seat.read().await;
        assert!(goes_on);
        tags.extend(more);
    }
}

#[tokio::test(start_paused = true)]
async fn new_parameters_in_mid_stream_stand_before_the_first_frame_that_needs_them() {
    let mut show = Show::start(60);
    show.run(SECOND).await;
    let mut seat = Seat::take(&show);
    let mut tags = Vec::new();
    follow(&mut show, &mut seat, SECOND * 3 / 2, &mut tags).await;
    assert_eq!(headers(&tags), [8, 9]);
    let changes = [
        (9, other_picture(), [8, 9, 9].as_slice()),
        (8, sound_info(48_000), &[8, 8, 9, 9]),
    ];
    for (kind, info, sent) in changes {
        let config = info.config.clone();
        let before = tags.len();
        show.is_key_due = true;
        show.publisher().set_track(Instant::now(), info).unwrap();
        follow(&mut show, &mut seat, SECOND, &mut tags).await;
        assert_eq!(headers(&tags), sent);
        let mut of_track = tags[before..].iter().filter(|tag| tag.kind == kind);
        let header = of_track.find(|tag| tag.is_header()).unwrap();
        assert!(header.body.ends_with(&config));
        let next = of_track.next().expect("frames follow");
        assert_eq!(next.ms, header.ms);
        assert!(kind == 8 || next.is_key());
    }
    // Sending the same once more, as encoders do, changes nothing.
    show.publisher()
        .set_track(Instant::now(), sound_info(48_000))
        .unwrap();
    follow(&mut show, &mut seat, SECOND, &mut tags).await;
    assert_eq!(headers(&tags), [8, 8, 9, 9]);
    assert_forward(&tags);
}

/// An encoder of the rung that is done with each picture at once.
struct Encoder {
    writer: TrackWriter,
    made: usize,
}

impl Encoder {
    fn new(show: &Show) -> Self {
        let writer = show.broadcast().made(TrackId::Rung(RUNG));
        Self { writer, made: 0 }
    }

    fn run(&mut self, show: &Show) {
        let pictures = held(&show.broadcast(), TrackId::Video);
        for source in &pictures[self.made..] {
            let info = self.writer.set_info(picture_info());
            self.writer.write(Frame {
                track: self.writer.track(),
                info,
                dts: source.dts,
                pts: source.pts,
                duration: None,
                is_key: source.is_key,
                is_discardable: false,
                discontinuities: source.discontinuities,
                payload: Bytes::from_static(RUNG_NAL),
                rtp: OnceLock::new(),
                flv: OnceLock::new(),
                chunks: OnceLock::new(),
                arrived: OnceLock::new(),
            });
        }
        self.made = pictures.len();
    }
}

fn rung_seat(show: &Show) -> Seat {
    let terms = Terms {
        rendition: Some(Rendition::Rung(RUNG)),
        merge: MERGE,
        ..Terms::default()
    };
    Seat::take_with(show, terms)
}

fn is_of_rung(tag: &Tag) -> bool {
    tag.is_picture() && tag.body.ends_with(RUNG_NAL)
}

#[tokio::test(start_paused = true)]
async fn a_rung_that_is_lost_gives_way_to_the_source_at_its_next_keyframe() {
    let mut show = Show::start(30);
    let mut encoder = Encoder::new(&show);
    show.run(SECOND).await;
    encoder.run(&show);
    let mut seat = rung_seat(&show);
    let mut tags = Vec::new();
    for _ in 0..15 {
        show.run(SECOND / 10).await;
        encoder.run(&show);
        tags.extend(seat.read().await.0);
    }
    let pictures = |tags: &[Tag]| tags.iter().filter(|t| t.is_picture()).count();
    assert!(pictures(&tags) > 30 && tags.iter().filter(|t| t.is_picture()).all(is_of_rung));
    let rendition = |seat: &Seat| seat.control.measured().rendition;
    assert_eq!(rendition(&seat), Some(Rendition::Rung(RUNG)));
    let lost_at = tags.iter().rfind(|tag| tag.is_picture()).unwrap().ms;
    encoder.writer.set_unavailable(Some("overload"));
    let before = tags.len();
    follow(&mut show, &mut seat, SECOND * 2, &mut tags).await;
    assert_eq!(headers(&tags), [8, 9, 9]);
    assert_forward(&tags);
    let mut after = tags[before..].iter().filter(|tag| tag.is_picture());
    let first = after.next().expect("the picture goes on");
    assert!(first.is_key() && !is_of_rung(first) && first.ms > lost_at);
    // At the very next keyframe, a second apart.
    assert!(first.ms - lost_at <= 1_050, "{} ms", first.ms - lost_at);
    assert!(after.all(|tag| !is_of_rung(tag)));
    assert_eq!(rendition(&seat), Some(Rendition::Source));
}

#[tokio::test(start_paused = true)]
async fn a_rung_that_cannot_be_made_at_all_leaves_its_viewer_the_source() {
    let mut show = Show::start(30);
    let encoder = Encoder::new(&show);
    show.run(SECOND).await;
    let mut seat = rung_seat(&show);
    let (tags, _) = seat.read().await;
    assert!(tags.iter().all(|tag| !tag.is_picture()), "nothing is made");
    encoder.writer.set_unavailable(Some("encoders"));
    let (tags, goes_on) = seat.read().await;
    assert!(goes_on);
    assert_eq!(headers(&tags), [8, 9]);
    let first = tags.iter().find(|tag| tag.is_picture()).unwrap();
    assert!(first.is_key() && !is_of_rung(first));
    assert_forward(&tags);
}
