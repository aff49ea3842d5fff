//! How much an FLV viewer is sent at once, how long that waits, and what comes of one that takes
//! too little.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use lamplight_media::flv::viewer::{BYTES_MAX, SLICES_MAX, Terms};
use lamplight_media::frame::{Kind, Sample, TrackId};
use lamplight_media::time::SourceTime;
use tokio::time::{Instant, sleep, timeout};

use crate::support::Show;
use crate::support::flv::{MERGE, Seat, Tag, assert_forward, held};

const SECOND: Duration = Duration::from_secs(1);

/// A show of one group of pictures of this size, all there already.
fn show_of(pictures: i64, bytes: usize) -> Show {
    let mut show = Show::start(30);
    for n in 0..pictures {
        let is_key = n == 0;
        let mut nal = BytesMut::new();
        nal.put_u32(u32::try_from(bytes).expect("a small size"));
        nal.put_u8(if is_key { 0x65 } else { 0x41 });
        nal.put_bytes(0x5a, bytes - 1);
        let sample = Sample {
            kind: Kind::Video,
            dts: SourceTime::from_millis(n * 33),
            composition: Duration::ZERO,
            samples: 0,
            is_key,
            is_discardable: false,
            payload: nal.freeze(),
        };
        let written = show.publisher().write(Instant::now(), sample);
        assert!(written.is_some());
    }
    show
}

/// Slices and bytes of each time that something was gathered. Frames become tags when they are
/// gathered, which tells one time from the next.
async fn gathered(show: &Show) -> Vec<(usize, usize)> {
    let mut seat = Seat::take_with(show, Terms::default());
    let broadcast = show.broadcast();
    let made = || {
        let frames = held(&broadcast, TrackId::Video);
        frames.iter().filter(|f| f.flv.get().is_some()).count()
    };
    let (mut times, mut before) = (Vec::new(), 0);
    while let Ok(Some(slice)) = timeout(SECOND, seat.viewer.next()).await {
        let now = made();
        if now > before {
            times.push((0, 0));
        }
        before = now;
        let (slices, bytes) = times.last_mut().expect("the first gathers");
        *slices += 1;
        *bytes += slice.len();
    }
    assert_eq!(before, held(&broadcast, TrackId::Video).len());
    times
}

#[tokio::test(start_paused = true)]
async fn at_most_64_slices_are_gathered_at_once() {
    let times = gathered(&show_of(300, 100)).await;
    assert!(times.len() > 4, "{times:?}");
    let (_last, full) = times.split_last().unwrap();
    for (slices, _) in full {
        // A frame may take three, for which there must be room.
        assert!((SLICES_MAX - 2..=SLICES_MAX).contains(slices), "{times:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_frame_is_added_to_256_kib_that_are_gathered() {
    // Slices of the second are cut, since a slow connection must be seen to take something.
    for (pictures, bytes) in [(30, 40_000), (8, 700_000)] {
        let times = gathered(&show_of(pictures, bytes)).await;
        let (_last, full) = times.split_last().unwrap();
        assert!(full.len() > 3, "{times:?}");
        for (_, gathered) in full {
            let most = BYTES_MAX + bytes + 100;
            assert!((BYTES_MAX..most).contains(gathered), "{times:?}");
        }
    }
}

/// After a frame came, and another 10 ms later: how long the first waited, and how many pictures
/// went with it.
async fn merged(merge: Duration) -> (Duration, usize) {
    let mut show = Show::start(60);
    show.run(SECOND * 2).await;
    let terms = Terms {
        merge,
        ..Terms::default()
    };
    let mut seat = Seat::take_with(&show, terms);
    seat.read().await;
    let began = Instant::now();
    show.step();
    let later = async {
        sleep(Duration::from_millis(10)).await;
        show.step();
    };
    let taken = async {
        let mut slices = vec![seat.viewer.next().await.expect("the show goes on")];
        let waited = began.elapsed();
        while let Ok(more) = timeout(Duration::from_millis(1), seat.viewer.next()).await {
            slices.extend(more);
        }
        (waited, slices)
    };
    let ((waited, slices), ()) = tokio::join!(taken, later);
    let is_picture = |slice: &&Bytes| slice[0] == 9;
    (waited, slices.iter().filter(is_picture).count())
}

#[tokio::test(start_paused = true)]
async fn frames_wait_for_company_as_long_as_is_configured_and_not_at_all_with_zero() {
    assert_eq!(merged(Duration::ZERO).await, (Duration::ZERO, 1));
    let (waited, pictures) = merged(MERGE).await;
    assert_eq!(pictures, 2);
    // Timers have a grain of a millisecond.
    let most = MERGE + Duration::from_millis(2);
    assert!((MERGE..=most).contains(&waited), "waited {waited:?}");
}

fn first_picture(tags: &[Tag]) -> &Tag {
    let first = tags.iter().find(|tag| tag.is_picture());
    first.expect("a picture was sent")
}

/// Frames that a viewer was sent, and those it could have been since its first.
fn counts(show: &Show, tags: &[Tag]) -> (usize, usize) {
    let sent = tags.iter().filter(|t| t.kind != 18 && !t.is_header());
    let first = first_picture(tags).ms;
    let of = |track| {
        let frames = held(&show.broadcast(), track);
        let since = |frame: &&Arc<_>| frame_ms(frame) >= i64::from(first);
        frames.iter().filter(since).count()
    };
    (sent.count(), of(TrackId::Video) + of(TrackId::Audio))
}

fn frame_ms(frame: &lamplight_media::frame::Frame) -> i64 {
    frame.dts.as_micros() / 1_000
}

/// Reads, looks away for so long, reads again: all tags, the time of the first picture after, and
/// how many frames were passed over.
async fn looked_away(show: &mut Show, away: Duration) -> (Vec<Tag>, Tag, usize) {
    show.run(SECOND * 2).await;
    let mut seat = Seat::take(show);
    let (mut tags, _) = seat.read().await;
    show.run(away).await;
    let (more, goes_on) = seat.read().await;
    assert!(goes_on);
    let first = first_picture(&more).clone();
    tags.extend(more);
    assert_forward(&tags);
    let skipped = seat.control.measured().skipped;
    let skipped = usize::try_from(skipped).expect("a small number");
    (tags, first, skipped)
}

#[tokio::test(start_paused = true)]
async fn who_is_less_than_three_seconds_behind_is_sent_every_frame() {
    let mut show = Show::start(30);
    let (tags, _, skipped) = looked_away(&mut show, Duration::from_millis(2_900)).await;
    let (sent, published) = counts(&show, &tags);
    assert_eq!((sent, skipped), (published, 0));
}

#[tokio::test(start_paused = true)]
async fn who_is_more_than_three_seconds_behind_goes_on_at_the_newest_keyframe_and_all_is_counted() {
    let mut show = Show::start(30);
    let (tags, first, skipped) = looked_away(&mut show, Duration::from_millis(3_300)).await;
    let pictures = held(&show.broadcast(), TrackId::Video);
    let newest_key = pictures.iter().rfind(|frame| frame.is_key).unwrap();
    assert!(first.is_key());
    assert_eq!(i64::from(first.ms), frame_ms(newest_key));
    let (sent, published) = counts(&show, &tags);
    assert!(skipped > 90, "{skipped}");
    assert_eq!(sent + skipped, published);
}

#[tokio::test(start_paused = true)]
async fn who_takes_a_slice_now_and_then_is_not_given_up() {
    let mut show = Show::start(60);
    show.run(SECOND * 3).await;
    let mut seat = Seat::take(&show);
    let slow = async {
        for _ in 0..5 {
            assert!(seat.viewer.next().await.is_some());
            sleep(SECOND * 14).await;
        }
    };
    let control = seat.control.clone();
    tokio::select! {
        _ = control.watch() => panic!("it was given up"),
        () = slow => {}
    }
    assert!(control.watch().await, "one second later it is");
}
