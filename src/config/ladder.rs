//! The ladder: `[[ladder]]`, read as a whole.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use super::Reader;

const KEY: &str = "ladder";
const RUNGS_MAX: usize = 8;
const LINES: RangeInclusive<u16> = 144..=2_160;
const BITRATE_BPS: RangeInclusive<u64> = 50_000..=50_000_000;
const AUDIO_BPS: RangeInclusive<u32> = 16_000..=256_000;
const FPS_MAX: u32 = 240;

/// One rendition below the source.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rung {
    pub lines: u16,
    pub source_lines_min: u32,
    /// 0: no limit.
    pub source_lines_max: u32,
    pub bitrate_bps: u64,
    pub audio_bps: u32,
    /// 0: those of the source.
    pub fps_max: u32,
}

impl Rung {
    /// What is wrong with it.
    fn fault(&self) -> Option<String> {
        let lines = u32::from(self.lines);
        let (from, to) = (self.source_lines_min, self.source_lines_max);
        if !LINES.contains(&self.lines) || !lines.is_multiple_of(2) {
            let (least, most) = (LINES.start(), LINES.end());
            return Some(format!("even, {least} to {most}, for `lines`"));
        }
        let checks = [
            (from >= lines, "at least `lines` for `source_lines_min`"),
            (
                to == 0 || to >= from,
                "0, or at least `source_lines_min`, for `source_lines_max`",
            ),
            (
                BITRATE_BPS.contains(&self.bitrate_bps),
                "50000 to 50000000 for `bitrate_bps`",
            ),
            (
                AUDIO_BPS.contains(&self.audio_bps),
                "16000 to 256000 for `audio_bps`",
            ),
            (self.fps_max <= FPS_MAX, "0 to 240 for `fps_max`"),
        ];
        let bad = checks.into_iter().find(|(is_good, _)| !is_good);
        bad.map(|(_, allowed)| format!("{allowed} where `lines` is {lines}"))
    }
}

/// The rungs, in the order in which they stand.
pub(super) fn read(reader: &mut Reader) -> Vec<Rung> {
    let form = "a list of [[ladder]] with lines, source_lines_min, source_lines_max, bitrate_bps, \
                audio_bps and fps_max";
    let rungs: Vec<Rung> = reader.value(KEY, form);
    if rungs.len() > RUNGS_MAX {
        reader.refuse(KEY, &format!("at most {RUNGS_MAX} rungs"));
    }
    for fault in rungs.iter().filter_map(Rung::fault) {
        reader.refuse(KEY, &fault);
    }
    let lines: BTreeSet<u16> = rungs.iter().map(|rung| rung.lines).collect();
    if lines.len() < rungs.len() {
        reader.refuse(KEY, "of another `lines` in each rung");
    }
    rungs
}
