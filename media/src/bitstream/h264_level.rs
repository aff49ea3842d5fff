//! Levels of H.264 (ITU-T H.264 table A-1): the least one that a picture needs.

/// One row: `level_idc`, macroblocks a second, macroblocks of a picture, kilobits a second.
type Row = (u8, u64, u64, u64);

const LEVELS: [Row; 16] = [
    (10, 1_485, 99, 64),
    (11, 3_000, 396, 192),
    (12, 6_000, 396, 384),
    (13, 11_880, 396, 768),
    (20, 11_880, 396, 2_000),
    (21, 19_800, 792, 4_000),
    (22, 20_250, 1_620, 4_000),
    (30, 40_500, 1_620, 10_000),
    (31, 108_000, 3_600, 14_000),
    (32, 216_000, 5_120, 20_000),
    (40, 245_760, 8_192, 20_000),
    (41, 245_760, 8_192, 50_000),
    (42, 522_240, 8_704, 50_000),
    (50, 589_824, 22_080, 135_000),
    (51, 983_040, 36_864, 240_000),
    (52, 2_073_600, 36_864, 240_000),
];

/// `level_idc` of a Baseline or Main stream of this size, so many whole pictures a second, and this
/// bitrate; the highest there is for what none allows.
pub(crate) fn level((width, height): (u32, u32), frame_rate: u32, bitrate_bps: u64) -> u8 {
    let blocks = |side: u32| u64::from(side.div_ceil(16));
    let (wide, high) = (blocks(width), blocks(height));
    let (size, side) = (wide * high, wide.max(high));
    let allows = |(_, per_second, size_max, kbps): &&Row| {
        size * u64::from(frame_rate) <= *per_second
            && size <= *size_max
            && side * side <= 8 * size_max
            && bitrate_bps <= kbps * 1_000
    };
    let row = LEVELS.iter().find(allows).unwrap_or(&LEVELS[15]);
    row.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rung_has_the_least_level_that_allows_it() {
        let rows = [
            ((1_920, 1_080), 30, 4_500_000, 40),
            ((1_920, 1_080), 60, 6_750_000, 42),
            ((1_280, 720), 30, 2_500_000, 31),
            ((1_280, 720), 60, 3_750_000, 32),
            ((854, 480), 30, 1_200_000, 31),
            ((640, 360), 30, 700_000, 30),
            ((426, 240), 30, 350_000, 21),
            ((7_680, 4_320), 60, 350_000, 52),
            ((176, 144), 15, 64_000, 10),
            ((640, 360), 30, 12_000_000, 31),
        ];
        for (size, rate, bitrate_bps, expected) in rows {
            assert_eq!(level(size, rate, bitrate_bps), expected, "{size:?} {rate}");
        }
    }
}
