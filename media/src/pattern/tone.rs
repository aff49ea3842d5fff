//! The sound: a soft chord, and a short bell on each second.
//!
//! All pitches are whole hertz, so one second repeats without a seam and is made once.

use std::f64::consts::TAU;

use crate::transcode::encoder::RATE;

/// The chord, in hertz, with the loudness of each voice on the left and on the right.
const CHORD: [(f64, [f64; 2]); 4] = [
    (110.0, [0.030, 0.030]),
    (220.0, [0.022, 0.014]),
    (277.0, [0.010, 0.018]),
    (330.0, [0.014, 0.010]),
];
/// Pitch of the bell, and on each tenth second.
const BELL: f64 = 880.0;
const BELL_TENTH: f64 = 1_320.0;
const BELL_LOUDNESS: f64 = 0.16;
/// How fast the bell rises and fades, in seconds.
const RISE: f64 = 0.003;
const FADE: f64 = 0.09;

/// One second of sound, with either bell.
pub(super) struct Tone {
    plain: Vec<[f32; 2]>,
    tenth: Vec<[f32; 2]>,
}

impl Tone {
    pub(super) fn new() -> Self {
        let second = |bell: f64| (0..RATE).map(|n| sample(n, bell)).collect();
        Self {
            plain: second(BELL),
            tenth: second(BELL_TENTH),
        }
    }

    /// `count` samples from sample `first` of a show that begins on second `second`.
    pub(super) fn samples(&self, second: u64, first: u64, count: u64) -> Vec<[f32; 2]> {
        let rate = u64::from(RATE);
        (first..first + count)
            .filter_map(|n| {
                let is_tenth = (second + n / rate).is_multiple_of(10);
                let table = if is_tenth { &self.tenth } else { &self.plain };
                table.get(usize::try_from(n % rate).ok()?).copied()
            })
            .collect()
    }
}

fn sample(n: u32, bell: f64) -> [f32; 2] {
    let t = f64::from(n) / f64::from(RATE);
    // One slow swell a second keeps the chord from being a hum.
    let swell = 0.8 - 0.2 * (TAU * t).cos();
    let rise = (t / RISE).min(1.0);
    let ring = BELL_LOUDNESS * rise * (-t / FADE).exp() * (TAU * bell * t).sin();
    [0, 1].map(|channel| {
        let voices = CHORD.iter();
        let chord: f64 = voices
            .map(|(pitch, loudness)| loudness[channel] * (TAU * pitch * t).sin())
            .sum();
        narrow(chord * swell + ring)
    })
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a sample keeps 24 of its 53 bits, far more than the encoder does"
)]
const fn narrow(value: f64) -> f32 {
    value as f32
}
