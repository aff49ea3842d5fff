//! 24 hours of a show, in virtual time (spec media.md 6.6): nothing grows, nothing drifts.

use std::time::Duration;

use lamplight_media::hls::{HlsConfig, RenditionId};
use time::OffsetDateTime;
use tokio::time::Instant;

use crate::support::hls::{BOTH, CONFIG, Packaged};
use crate::support::list::List;
use crate::support::{Form, SHOW_BEGAN, Show};

const HOUR: Duration = Duration::from_secs(3_600);
/// Pictures a second: as few as are passed through.
const FORM: Form = Form { gop: 20, rate: 10 };
/// The publisher's clock is slow by so much for each picture: 50 ppm.
const DAWDLES_US: u64 = 5;

/// How much there is of what must not grow.
#[derive(Debug)]
struct Size {
    segments: usize,
    parts: usize,
    text: usize,
    bytes: usize,
}

impl Size {
    fn of(packaged: &Packaged, list: &List) -> Self {
        Self {
            segments: list.segments.len(),
            parts: list.segments.iter().map(|s| s.parts.len()).sum(),
            text: list.text.len(),
            bytes: packaged.stream.status().expect("on air").bytes,
        }
    }

    /// Numbers get longer, and how far the open segment has come differs.
    fn check_beside(&self, first: &Self) {
        let says = format!("{first:?}, then {self:?}");
        assert!(self.segments.abs_diff(first.segments) <= 1, "{says}");
        assert!(self.parts.abs_diff(first.parts) <= 4, "{says}");
        assert!(self.text <= first.text * 11 / 10, "{says}");
        assert!(self.bytes <= first.bytes * 11 / 10, "{says}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_day_on_air_neither_grows_nor_drifts() {
    let began = Instant::now();
    let mut show = Show::with_few_frames(FORM);
    show.dawdles_us = DAWDLES_US;
    let mut packaged = Packaged::with(show, CONFIG);
    let mut first = None;
    for hour in 1..=24 {
        packaged.run(HOUR).await;
        let (src, aac) = (
            packaged.list(RenditionId::Src).await,
            packaged.list(RenditionId::Aac).await,
        );
        for list in [&src, &aac] {
            list.check();
            list.check_that_all_follow(Duration::from_millis(93));
        }
        src.check_beside(&aac);
        let size = Size::of(&packaged, &src);
        first.get_or_insert_with(|| Size::of(&packaged, &src));
        size.check_beside(first.as_ref().expect("just set"));
        check_clock(&src, began, hour);
        check_parts(&src, &CONFIG);
        let apart = edge_ms(&src) - edge_ms(&aac);
        assert!(
            apart.abs() <= 500,
            "hour {hour}: {apart} ms between the edges"
        );
        for rendition in BOTH {
            check_tracks(&packaged, rendition).await;
        }
        if hour % 6 == 0 {
            // The encoder is restarted: its clock begins at zero.
            packaged.show.leave();
            packaged.wait(Duration::from_secs(3)).await;
            packaged.show.come_back();
            packaged.run(Duration::from_secs(60)).await;
        }
    }
    let msn = packaged.stream.status().expect("on air").msn;
    assert!(msn >= 24 * 3_600 / 2 - 24, "{msn} segments in a day");
}

/// The date of the newest part is the real time, but for what has not come yet.
fn check_clock(list: &List, began: Instant, hour: u32) {
    let now = OffsetDateTime::UNIX_EPOCH + SHOW_BEGAN + began.elapsed();
    let last = list.segments.last().expect("on air");
    let listed: Duration = last.parts.iter().map(|part| part.duration).sum();
    let behind = now - (last.date + listed);
    let behind = behind.whole_milliseconds();
    // A part is listed once the picture after it has come.
    assert!(
        (-100..=800).contains(&behind),
        "hour {hour}: {behind} ms behind"
    );
}

/// Parts are as long as ever.
fn check_parts(list: &List, config: &HlsConfig) {
    for segment in list.complete() {
        for part in segment.parts.iter().rev().skip(1) {
            assert!(
                part.duration * 100 >= config.part_target * 85,
                "{}",
                list.text
            );
        }
    }
}

fn edge_ms(list: &List) -> i128 {
    let last = list.segments.last().expect("on air");
    let listed: Duration = last.parts.iter().map(|part| part.duration).sum();
    last.start_ms() + i128::try_from(listed.as_millis()).expect("short")
}

/// What the media says of its time is what the list says: on both lines, so that they agree.
async fn check_tracks(packaged: &Packaged, rendition: RenditionId) {
    let list = packaged.list(rendition).await;
    let (one, other) = (&list.segments[1], &list.segments[2]);
    let begins = packaged.begins_us(rendition, &list, one.msn).await;
    let goes_on = packaged.begins_us(rendition, &list, other.msn).await;
    let dates = (other.start_ms() - one.start_ms()) * 1_000;
    let apart = i128::from(goes_on - begins) - dates;
    assert!(apart.abs() <= 93_000, "{rendition}: {apart} us");
}
