//! The playlists of a replay and of a clip of it (spec media.md 6.7; RFC 8216bis). Pure: the index
//! in, text out.

use std::fmt::Write as _;
use std::time::Duration;

use super::index::{Index, Shown, Slot, Track};
use super::{init_file, segment_file};
use crate::hls::{
    AudioFacts, Multivariant, RateFacts, RenditionId, Variant, date, seconds, write_range,
};
use crate::time::{MediaTime, micros};

/// The name of a media playlist.
const PLAYLIST_NAME: &str = "vod.m3u8";
/// Date ranges of one playlist; passing cues beyond are in the media alone.
const RANGES_MAX: usize = 10_000;

/// A stretch of T.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its beginning.
    pub from: MediaTime,
    /// Its end, later than that.
    pub to: MediaTime,
}

impl Span {
    /// The stretch between two points; `None` when it is empty or begins before T does.
    pub fn new(from_us: i64, to_us: i64) -> Option<Self> {
        let is_good = (0..to_us).contains(&from_us);
        is_good.then_some(Self {
            from: MediaTime::from_micros(from_us),
            to: MediaTime::from_micros(to_us),
        })
    }

    fn holds(&self, slot: &Slot) -> bool {
        slot.end_us() > self.from.as_micros() && slot.t_us < self.to.as_micros()
    }
}

impl Index {
    /// The numbers of the first and last segment that a clip takes; of all without one. `None`
    /// when there are none.
    pub(super) fn reach(&self, span: Option<Span>) -> Option<(u64, u64)> {
        let slots = &self.leading()?.slots;
        let is_in = |slot: &&Slot| span.is_none_or(|span| span.holds(slot));
        let first = slots.iter().find(is_in)?;
        let last = slots.iter().rev().find(is_in)?;
        Some((first.msn, last.msn))
    }

    /// The multivariant playlist; `query` goes into the URIs of the media playlists. `None` when
    /// there is nothing to play.
    pub fn multivariant(&self, query: &str) -> Option<String> {
        if !self.has_media() {
            return None;
        }
        let side = |id| self.tracks.get(&id).filter(|track| !track.inits.is_empty());
        let src = side(RenditionId::Src).and_then(|track| {
            let init = track.inits.first()?;
            Some(Variant {
                id: RenditionId::Src,
                codecs: track.codecs(),
                size: init.size?,
                frame_rate: init.frame_rate,
                rates: track.rates(),
            })
        });
        let audio = side(RenditionId::Aac).map(|track| AudioFacts {
            codecs: track.codecs(),
            rates: track.rates(),
        });
        let multivariant = Multivariant {
            variants: src.into_iter().collect(),
            audio,
        };
        Some(multivariant.text(PLAYLIST_NAME, query))
    }

    /// The media playlist of a rendition, whole or of the segments of a clip. `None` when there is
    /// no such rendition, or nothing of it in the clip.
    pub fn playlist(
        &self,
        instance: &str,
        rendition: RenditionId,
        span: Option<Span>,
    ) -> Option<String> {
        let track = self.tracks.get(&rendition)?;
        let (first, last) = self.reach(span)?;
        let before = track.slots.partition_point(|slot| slot.msn < first);
        let until = track.slots.partition_point(|slot| slot.msn <= last);
        let slots = track.slots.get(before..until).filter(|s| !s.is_empty())?;
        let breaks = track.slots.iter().take(before + 1).skip(1);
        let breaks = breaks.filter(|slot| slot.is_discontinuity).count();
        let text = Text {
            instance,
            rendition,
            slots,
            target: self.target(),
            breaks,
            ranges: self.ranges(slots),
            start: span.map(|span| {
                let first_us = slots.first().map_or(0, |slot| slot.t_us);
                span.from.saturating_since(MediaTime::from_micros(first_us))
            }),
        };
        let mut out = String::with_capacity(slots.len() * 128 + 512);
        text.write(&mut out).expect("a String takes every write");
        Some(out)
    }

    /// `EXT-X-TARGETDURATION`: no segment of any rendition, rounded, is longer.
    fn target(&self) -> u64 {
        let all = self.tracks.values().flat_map(|track| &track.slots);
        let longest = all.map(|slot| slot.duration_us).max().unwrap_or(0);
        (longest.saturating_add(500_000) / 1_000_000).max(1)
    }

    /// The date ranges that overlap these segments, in order; passing ones while there is room.
    fn ranges(&self, slots: &[Slot]) -> String {
        let from = slots.first().map_or(0, |slot| slot.t_us);
        let to = slots.last().map_or(0, Slot::end_us);
        let overlaps = |shown: &&Shown| {
            let (cue, t_us) = (&shown.cue, shown.cue.t.as_micros());
            let is_listed = cue.kind == crate::cue::CueKind::Listed;
            let lasting = cue.duration.map(|lasts| t_us.saturating_add(micros(lasts)));
            let closed = shown.closed.map(MediaTime::as_micros);
            let end = closed.or(lasting);
            let end = end.or_else(|| (!is_listed).then_some(t_us));
            t_us < to && end.is_none_or(|end| end >= from)
        };
        let mut out = String::new();
        for shown in self.cues.iter().filter(overlaps).take(RANGES_MAX) {
            let Some(start) = self.wall(shown.cue.t) else {
                continue;
            };
            let end = shown.closed.and_then(|t| self.wall(t));
            write_range(&mut out, &shown.cue, start, end).expect("a String takes every write");
        }
        out
    }
}

impl Track {
    /// Of all its init sections, each once.
    fn codecs(&self) -> String {
        let mut all: Vec<&str> = Vec::new();
        for init in &self.inits {
            if !all.contains(&init.codecs.as_str()) {
                all.push(&init.codecs);
            }
        }
        all.join(",")
    }

    fn rates(&self) -> RateFacts {
        let media = self.slots.iter().filter_map(|slot| {
            let media = slot.media.as_ref()?;
            (slot.duration_us > 0).then_some((media.bytes, slot.duration_us))
        });
        let bps = |bytes: u64, us: u64| {
            let bits = u128::from(bytes) * 8_000_000;
            u64::try_from(bits / u128::from(us.max(1))).unwrap_or(u64::MAX)
        };
        let (mut peak_bps, mut bytes, mut us) = (0, 0_u64, 0_u64);
        for (size, lasts) in media {
            peak_bps = peak_bps.max(bps(size, lasts));
            bytes = bytes.saturating_add(size);
            us = us.saturating_add(lasts);
        }
        RateFacts {
            peak_bps: peak_bps.min(u64::MAX / 2),
            mean_bps: bps(bytes, us).min(u64::MAX / 2),
        }
    }
}

/// A media playlist.
struct Text<'a> {
    instance: &'a str,
    rendition: RenditionId,
    slots: &'a [Slot],
    target: u64,
    /// Discontinuities before the first segment.
    breaks: usize,
    ranges: String,
    /// Where in it playing begins.
    start: Option<Duration>,
}

impl Text<'_> {
    fn write(&self, out: &mut String) -> std::fmt::Result {
        let first = self.slots.first().map_or(0, |slot| slot.msn);
        writeln!(out, "#EXTM3U\n#EXT-X-VERSION:9")?;
        writeln!(out, "#EXT-X-TARGETDURATION:{}", self.target)?;
        writeln!(out, "#EXT-X-PLAYLIST-TYPE:VOD")?;
        if self.rendition == RenditionId::Aac {
            writeln!(out, "#EXT-X-INDEPENDENT-SEGMENTS")?;
        }
        if let Some(start) = self.start {
            let offset = seconds(start);
            writeln!(out, "#EXT-X-START:TIME-OFFSET={offset},PRECISE=YES")?;
        }
        writeln!(out, "#EXT-X-MEDIA-SEQUENCE:{first}")?;
        writeln!(out, "#EXT-X-DISCONTINUITY-SEQUENCE:{}", self.breaks)?;
        out.push_str(&self.ranges);
        let mut init = None;
        for (n, slot) in self.slots.iter().enumerate() {
            if n > 0 && slot.is_discontinuity {
                writeln!(out, "#EXT-X-DISCONTINUITY")?;
            }
            if let Some(media) = &slot.media
                && init.replace(media.init) != Some(media.init)
            {
                let file = init_file(self.instance, media.init);
                writeln!(out, "#EXT-X-MAP:URI=\"{file}\"")?;
            }
            writeln!(out, "#EXT-X-PROGRAM-DATE-TIME:{}", date(slot.wall))?;
            if slot.media.is_none() {
                writeln!(out, "#EXT-X-GAP")?;
            }
            let lasts = seconds(Duration::from_micros(slot.duration_us));
            writeln!(out, "#EXTINF:{lasts},")?;
            writeln!(out, "{}", segment_file(self.instance, slot.msn))?;
        }
        writeln!(out, "#EXT-X-ENDLIST")
    }
}
