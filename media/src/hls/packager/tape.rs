//! What of the package is recorded (spec media.md 6.7): `src` and `aac`, segment by segment, as
//! they are completed; rungs are not.

use std::collections::BTreeMap;

use crate::cue::CueNews;
use crate::frame::TrackInfo;
use crate::hls::mp4;
use crate::hls::rendition::RenditionId;
use crate::hls::window::{Segment, Window};
use crate::record::{
    self, DiscontinuityRow, Entry, GapCause, GapRow, InitRow, Keyframe, Recorder, Row, SegmentRow,
    Stored,
};
use crate::time::micros;

/// The recording side of a packager.
#[derive(Debug)]
pub(super) struct Tape {
    recorder: Recorder,
    instance: String,
    sides: BTreeMap<RenditionId, Side>,
    dropped: u64,
}

#[derive(Debug, Default)]
struct Side {
    codecs: String,
    size: Option<(u32, u32)>,
    /// The newest init section that is recorded.
    init: Option<u32>,
}

impl Tape {
    pub(super) const fn new(recorder: Recorder, instance: String) -> Self {
        Self {
            recorder,
            instance,
            sides: BTreeMap::new(),
            dropped: 0,
        }
    }

    fn push(&mut self, entry: Entry) {
        self.dropped += self.recorder.push(entry);
    }

    /// Segments that a slow store has cost since this was asked last.
    pub(super) const fn take_dropped(&mut self) -> u64 {
        std::mem::replace(&mut self.dropped, 0)
    }

    /// A segment with these parameters begins.
    pub(super) fn begin(&mut self, rendition: RenditionId, info: &TrackInfo) {
        let side = self.sides.entry(rendition).or_default();
        side.codecs = mp4::codecs(info);
        side.size = info.picture_size();
    }

    pub(super) fn hear(&mut self, news: &CueNews) {
        self.push(Entry::Row(news.into()));
    }

    /// The newest segment of a window is complete.
    pub(super) fn keep(&mut self, rendition: RenditionId, window: &Window, rate: Option<f64>) {
        let Some(segment) = window.segments.back() else {
            return;
        };
        if matches!(rendition, RenditionId::Rung(_)) {
            return;
        }
        if segment.is_discontinuity {
            let row = DiscontinuityRow {
                rendition,
                msn: segment.msn,
            };
            self.push(Entry::Row(Row::Discontinuity(row)));
        }
        match segment.init.filter(|_| !segment.bytes.is_empty()) {
            Some(init) => {
                self.keep_init(rendition, window, (init, rate));
                self.keep_media(rendition, segment, init);
            }
            None => self.push(Entry::Row(Row::Gap(GapRow {
                rendition,
                msn: segment.msn,
                t_us: segment.start.as_micros(),
                duration_us: micros(segment.duration).unsigned_abs(),
                wall: segment.wall,
                cause: GapCause::Silence,
            }))),
        }
    }

    fn keep_init(
        &mut self,
        rendition: RenditionId,
        window: &Window,
        (n, frame_rate): (u32, Option<f64>),
    ) {
        let side = self.sides.entry(rendition).or_default();
        let Some(bytes) = window.init(n).filter(|_| side.init != Some(n)) else {
            return;
        };
        side.init = Some(n);
        let file = record::init_file(&self.instance, n);
        let key = record::key(self.recorder.recording(), rendition, &file);
        let row = InitRow {
            rendition,
            n,
            key: key.clone(),
            bytes: length(bytes.len()),
            codecs: side.codecs.clone(),
            size: side.size,
            frame_rate: frame_rate.filter(|_| rendition == RenditionId::Src),
        };
        self.push(Entry::Object(Stored { key, bytes }, Row::Init(row)));
    }

    fn keep_media(&mut self, rendition: RenditionId, segment: &Segment, init: u32) {
        let file = record::segment_file(&self.instance, segment.msn);
        let key = record::key(self.recorder.recording(), rendition, &file);
        let row = SegmentRow {
            rendition,
            msn: segment.msn,
            t_us: segment.start.as_micros(),
            duration_us: micros(segment.duration).unsigned_abs(),
            wall: segment.wall,
            init,
            key: key.clone(),
            bytes: length(segment.bytes.len()),
            keyframes: match rendition {
                RenditionId::Aac => Vec::new(),
                RenditionId::Src | RenditionId::Rung(_) => keyframes(segment),
            },
        };
        let bytes = segment.bytes.clone();
        self.push(Entry::Object(Stored { key, bytes }, Row::Segment(row)));
    }
}

/// Where parts begin with a keyframe.
fn keyframes(segment: &Segment) -> Vec<Keyframe> {
    let (mut t, mut offset, mut found) = (segment.start, 0, Vec::new());
    for part in &segment.parts {
        if part.is_independent {
            let t_us = t.as_micros();
            found.push(Keyframe { t_us, offset });
        }
        t = t + part.duration;
        offset += length(part.bytes.len());
    }
    found
}

fn length(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
