//! A viewer whose path changes moves between renditions and notices no more than the picture.

use super::own_codec::{hevc_info, of_hevc};
use super::*;
use crate::broadcast::LoadStep;
use crate::whep::playout::Seen;
use crate::whep::terms::Rendition;

/// Pictures between the source's keyframes.
const GOP: i64 = 60;
/// What lies above all renditions.
const WIDE: u64 = 20_000_000;

/// A source of 720 lines at 3 Mb/s and its converters, which make each picture so many later.
struct Studio {
    show: Show,
    made: Vec<Made>,
    late: i64,
    next: i64,
    begun: Vec<TrackId>,
    /// Encoders that make no keyframe but the first.
    is_deaf: bool,
}

impl Studio {
    fn start() -> Self {
        Self::of(picture_info(0))
    }

    /// A source of this form.
    fn of(info: TrackInfo) -> Self {
        let shape = Shape::Video {
            width: 1_280,
            height: 720,
        };
        let mut show = Show::of(TrackInfo { shape, ..info });
        show.payload = Bytes::from(vec![0; 12_500]);
        let tracks = [TrackId::Rung(480), TrackId::Rung(360)];
        let made = tracks.map(|track| {
            let writer = show.broadcast().made(track);
            let info = writer.set_info(picture_info(0));
            Made { writer, info }
        });
        Self {
            show,
            made: made.into(),
            late: 3,
            next: 0,
            begun: Vec::new(),
            is_deaf: false,
        }
    }

    /// The next picture of the source, and what the converters have ready: their keyframes are at
    /// equal T.
    fn step(&mut self) {
        self.show.picture(GOP);
        while self.next + self.late < self.show.pictures {
            let (n, t) = (self.next, self.next * STEP_US);
            self.next += 1;
            let users = |made: &&Made| made.writer.users() > 0;
            let wanted: Vec<&Made> = self.made.iter().filter(users).collect();
            let begins = |made: &&&Made| !self.begun.contains(&made.writer.track());
            let asks = |made: &&&Made| made.writer.wants_keyframe(MediaTime::from_micros(t));
            let is_new = wanted.iter().any(|made| begins(&made));
            let is_asked = wanted.iter().any(|made| asks(&made)) && !self.is_deaf;
            let is_grid = n % GOP == 0 && !self.is_deaf;
            for made in &wanted {
                let is_key = is_new || is_asked || is_grid;
                if is_key {
                    made.writer.answer_keyframe(MediaTime::from_micros(t));
                }
                made.write(t, is_key);
            }
            self.begun = wanted.iter().map(|made| made.writer.track()).collect();
        }
    }
}

/// A viewer with what it was sent: track, decode time and whether it is a keyframe.
struct Watching {
    viewer: Playout,
    probe: Option<bool>,
    sent: Vec<(TrackId, i64, bool)>,
}

impl Watching {
    fn start(studio: &Studio, wants: Wants) -> Self {
        Self {
            viewer: studio.show.viewer(wants),
            probe: None,
            sent: Vec::new(),
        }
    }

    /// So many seconds over a path that carries so much; the tracks of the pictures, one each.
    async fn run(&mut self, studio: &mut Studio, seconds: i64, estimate_bps: u64) -> Vec<TrackId> {
        let before = self.sent.len();
        for _ in 0..seconds * 30 {
            studio.step();
            let now = Instant::now();
            let seen = Seen {
                estimate_bps,
                lost: 0,
                probe: self.probe.take(),
            };
            self.probe = self.viewer.steer(now, seen).map(|_| true);
            assert_eq!(self.viewer.check(now), None);
            while let Some(frame) = self.viewer.next(now) {
                let t = frame.dts.as_micros();
                self.sent.push((frame.track, t, frame.is_key));
            }
            advance(STEP).await;
        }
        let pictures = self.sent[before..].iter();
        let pictures = pictures.filter(|(track, ..)| track.kind() == Kind::Video);
        pictures.map(|(track, ..)| *track).collect()
    }

    /// Each picture is newer than the one before it, and the first of each rendition is a keyframe.
    fn check(&self) {
        let is_picture = |sent: &&(TrackId, i64, bool)| sent.0.kind() == Kind::Video;
        let pictures: Vec<_> = self.sent.iter().filter(is_picture).collect();
        assert!(pictures[0].2);
        for pair in pictures.windows(2) {
            assert!(pair[0].1 < pair[1].1, "{pair:?}");
            assert!(pair[0].0 == pair[1].0 || pair[1].2, "{pair:?}");
        }
    }

    /// The longest time without a picture on T.
    fn gap_us(&self) -> i64 {
        let is_picture = |sent: &&(TrackId, i64, bool)| sent.0.kind() == Kind::Video;
        let times: Vec<i64> = self.sent.iter().filter(is_picture).map(|s| s.1).collect();
        let steps = times.windows(2).map(|w| w[1] - w[0]);
        steps.max().unwrap_or(0)
    }
}

/// 4 to 1 to 4 Mb/s: down to what fits at once, up again a place at a time, and no picture is
/// missing anywhere.
#[tokio::test(start_paused = true)]
async fn a_path_that_narrows_and_widens_moves_the_viewer_down_and_up() {
    let mut studio = Studio::start();
    let mut watching = Watching::start(&studio, PICTURE);
    let wide = watching.run(&mut studio, 10, WIDE).await;
    assert!(wide.iter().all(|track| *track == TrackId::Video));
    let narrow = watching.run(&mut studio, 5, 1_000_000).await;
    let at = narrow.iter().position(|track| *track == TrackId::Rung(360));
    assert!(at.unwrap() < 60, "after {at:?} pictures");
    assert_eq!(narrow.last(), Some(&TrackId::Rung(360)));
    let wide = watching.run(&mut studio, 40, WIDE).await;
    let mut order = wide;
    order.dedup();
    let expected = [TrackId::Rung(360), TrackId::Rung(480), TrackId::Video];
    assert_eq!(order, expected);
    watching.check();
    assert!(
        watching.gap_us() <= STEP_US,
        "a gap of {}",
        watching.gap_us()
    );
    assert_eq!(watching.viewer.skipped(), 0);
    assert_eq!(watching.viewer.moves().all(), 3);
    let users = studio.made.iter().map(|made| made.writer.users());
    assert_eq!(users.sum::<usize>(), 0, "nobody needs them any more");
}

/// The source is HEVC, which the viewer takes; all that is made of it is H.264.
#[tokio::test(start_paused = true)]
async fn a_viewer_of_two_codecs_moves_between_them() {
    let mut studio = Studio::of(hevc_info(93));
    let mut watching = Watching::start(&studio, of_hevc(Some(66)));
    let wide = watching.run(&mut studio, 4, WIDE).await;
    assert!(wide.iter().all(|track| *track == TrackId::Video));
    let narrow = watching.run(&mut studio, 8, 1_000_000).await;
    assert_eq!(narrow.last(), Some(&TrackId::Rung(360)));
    let wide = watching.run(&mut studio, 60, WIDE).await;
    assert_eq!(wide.last(), Some(&TrackId::Video));
    watching.check();
    assert!(watching.gap_us() <= 2 * STEP_US);
}

/// There is one picture it can be shown, and the sound.
#[tokio::test(start_paused = true)]
async fn a_viewer_of_hevc_alone_never_moves_to_what_is_made() {
    let mut studio = Studio::of(hevc_info(93));
    let mut watching = Watching::start(&studio, of_hevc(None));
    for (seconds, estimate_bps) in [(4, WIDE), (20, 1_000_000), (30, WIDE)] {
        let shown = watching.run(&mut studio, seconds, estimate_bps).await;
        assert!(shown.iter().all(|track| *track == TrackId::Video));
    }
    watching.check();
    assert!(studio.made.iter().all(|made| made.writer.users() == 0));
}

#[tokio::test(start_paused = true)]
async fn a_pinned_viewer_stays_whatever_its_path_carries() {
    for (rendition, track) in [
        (Rendition::Source, TrackId::Video),
        (Rendition::Rung(480), TrackId::Rung(480)),
    ] {
        let mut studio = Studio::start();
        let wants = Wants {
            rendition: Some(rendition),
            ..PICTURE
        };
        let mut watching = Watching::start(&studio, wants);
        for estimate_bps in [WIDE, 200_000, WIDE] {
            let shown = watching.run(&mut studio, 12, estimate_bps).await;
            assert!(shown.iter().all(|shown| *shown == track), "{rendition}");
        }
        watching.check();
    }
}

/// Below the lowest rung there is only sound, for as long as it takes, and no encoder runs for it.
#[tokio::test(start_paused = true)]
async fn a_path_too_narrow_for_any_picture_carries_the_sound_alone() {
    let mut studio = Studio::start();
    let mut watching = Watching::start(&studio, BOTH);
    watching.run(&mut studio, 5, WIDE).await;
    watching.run(&mut studio, 10, 300_000).await;
    let silent = watching.run(&mut studio, 60, 300_000).await;
    assert_eq!(silent, []);
    assert_eq!(studio.made[1].writer.users(), 0);
    let back = watching.run(&mut studio, 8, 1_000_000).await;
    assert!(back.len() > 60, "{}", back.len());
    assert!(back.iter().all(|track| *track == TrackId::Rung(360)));
    watching.check();
}

#[tokio::test(start_paused = true)]
async fn a_rung_that_is_not_made_any_more_is_left_for_the_next() {
    let mut studio = Studio::start();
    let mut watching = Watching::start(&studio, PICTURE);
    watching.run(&mut studio, 5, WIDE).await;
    watching.run(&mut studio, 4, 1_500_000).await;
    assert_eq!(watching.sent.last().unwrap().0, TrackId::Rung(480));
    studio.made[0]
        .writer
        .set_unavailable(Some("converter_failed"));
    watching.run(&mut studio, 3, 1_500_000).await;
    assert_eq!(watching.sent.last().unwrap().0, TrackId::Rung(360));
    watching.check();
}

/// There is too much to encode: whoever watches the rung that is left out watches the next.
#[tokio::test(start_paused = true)]
async fn a_rung_that_is_shed_is_left_for_the_next_and_taken_again_when_it_is_back() {
    let mut studio = Studio::start();
    let mut watching = Watching::start(&studio, PICTURE);
    watching.run(&mut studio, 5, WIDE).await;
    watching.run(&mut studio, 4, 1_500_000).await;
    let (broadcast, rung) = (Arc::clone(studio.show.broadcast()), TrackId::Rung(480));
    assert_eq!(watching.sent.last().unwrap().0, rung);
    broadcast.take_load_step(LoadStep::Shed(rung));
    watching.run(&mut studio, 3, 2_000_000).await;
    assert_eq!(watching.sent.last().unwrap().0, TrackId::Rung(360));
    broadcast.take_load_step(LoadStep::Restored(rung));
    watching.run(&mut studio, 40, 2_000_000).await;
    assert_eq!(watching.sent.last().unwrap().0, rung);
    watching.check();
}

/// So is a viewer that wants that one rendition: it is shown another until the one is back.
#[tokio::test(start_paused = true)]
async fn a_pinned_viewer_leaves_its_rung_only_while_that_is_shed() {
    let mut studio = Studio::start();
    let rung = TrackId::Rung(480);
    let wants = Wants {
        rendition: Some(Rendition::Rung(480)),
        ..PICTURE
    };
    let mut watching = Watching::start(&studio, wants);
    watching.run(&mut studio, 5, WIDE).await;
    let broadcast = Arc::clone(studio.show.broadcast());
    broadcast.take_load_step(LoadStep::Shed(rung));
    watching.run(&mut studio, 3, WIDE).await;
    assert_eq!(watching.sent.last().unwrap().0, TrackId::Rung(360));
    broadcast.take_load_step(LoadStep::Restored(rung));
    watching.run(&mut studio, 5, WIDE).await;
    assert_eq!(watching.sent.last().unwrap().0, rung);
    watching.check();
}

/// The keyframe that was asked for never comes: after a moment the source goes on.
#[tokio::test(start_paused = true)]
async fn a_rung_without_a_keyframe_is_not_waited_for_long() {
    let mut studio = Studio::start();
    let mut watching = Watching::start(&studio, PICTURE);
    // Somebody else watches it, so that its first keyframe is long past.
    let other = studio
        .show
        .broadcast()
        .cursor(TrackId::Rung(360), Start::Live);
    watching.run(&mut studio, 5, WIDE).await;
    studio.is_deaf = true;
    let shown = watching.run(&mut studio, 12, 900_000).await;
    assert!(shown.iter().all(|track| *track == TrackId::Video));
    assert!(shown.len() > 12 * 30 / 2, "{} pictures", shown.len());
    watching.check();
    drop(other);
}

/// The source is re-encoded for the viewer: from one made picture to another there is no gap.
#[tokio::test(start_paused = true)]
async fn from_one_rung_to_another_no_picture_is_missing() {
    let mut studio = Studio::start();
    let mut watching = Watching::start(&studio, PICTURE);
    watching.run(&mut studio, 5, WIDE).await;
    watching.run(&mut studio, 4, 1_500_000).await;
    let down = watching.run(&mut studio, 4, 900_000).await;
    assert_eq!(down[0], TrackId::Rung(480));
    assert_eq!(down.last(), Some(&TrackId::Rung(360)));
    watching.check();
    assert!(watching.gap_us() <= STEP_US);
}
