//! What the show looks like: a lamp that bounces, a dial that goes round each second, clock and
//! counter.
//!
//! The counter is there twice: in digits for people, and along the lower edge as boxes for
//! programs: bit 0 of the picture's number first, white for 1, and below each box its reverse.

use time::OffsetDateTime;

use super::canvas::{
    Area, Canvas, Mask, Paint, STEP, coverage, length, level, rounded_box, signed, unsigned,
};
use super::font::Font;

/// Boxes of the counter for programs; it starts again after this many bits.
pub(super) const CODE_BITS: usize = 16;
/// Pictures from one bounce of the lamp to the next, and from one side to the other.
const BOUNCE: i32 = 48;
const CROSSING: i32 = 190;
/// Dots of the dial.
const DOTS: i32 = 60;

const INK: (i32, i32, i32) = (245, 242, 236);
const INK_SOFT: (i32, i32, i32) = (185, 180, 171);
const GLOW: (i32, i32, i32) = (255, 184, 77);
const GLOW_DEEP: (i32, i32, i32) = (244, 123, 46);
/// The colours of a test card, in the order of their brightness.
const BARS: [(i32, i32, i32); 8] = [
    (235, 235, 235),
    (235, 235, 16),
    (16, 235, 235),
    (16, 235, 16),
    (235, 16, 235),
    (235, 16, 16),
    (16, 16, 235),
    (24, 24, 32),
];

fn paint((red, green, blue): (i32, i32, i32)) -> Paint {
    Paint::rgb(red, green, blue)
}

/// Everything that is drawn with, and the picture it is drawn on.
pub(super) struct Scene {
    backdrop: Canvas,
    canvas: Canvas,
    digits: Font,
    words: Font,
    lamp: Mask,
    halo: Mask,
    dot: Mask,
    /// One ninetieth of the height: the unit of all places and sizes.
    unit: i32,
    frame_rate: u64,
}

impl Scene {
    /// Prepares pictures of this size; a shape near 16 to 9 is expected.
    pub(super) fn new((width, height): (usize, usize), frame_rate: u64) -> Self {
        let unit = signed(height) / 90;
        let words = Font::new(
            "ACDEFGHILMNOPRSTUVWXY0123456789:.-",
            unit * 3,
            unit / 2,
            unit,
        );
        let backdrop = backdrop((width, height), unit, &words);
        Self {
            canvas: backdrop.clone(),
            backdrop,
            digits: Font::new("0123456789:.", unit * 9, unit + unit / 8, unit),
            words,
            lamp: disc(unit * 5, 1),
            halo: disc(unit * 18, unit * 14),
            dot: disc(unit * 4 / 5, 1),
            unit,
            frame_rate,
        }
    }

    /// Draws picture `n`, shown at `wall`.
    pub(super) fn draw(&mut self, n: u64, wall: OffsetDateTime) -> &Canvas {
        self.canvas.copy_from(&self.backdrop);
        self.draw_dial(n);
        self.draw_lamp(n);
        self.draw_clock(n, wall);
        self.draw_code(n);
        &self.canvas
    }

    /// A point that runs once round the dial in a second, with a tail.
    fn draw_dial(&mut self, n: u64) {
        let turn = n % self.frame_rate * 60 / self.frame_rate;
        let head = i32::try_from(turn).unwrap_or(0);
        for back in 0..12 {
            let at = dial_place(self.canvas.width, self.unit, head - back);
            let place = centred(&self.dot, at);
            self.canvas
                .stamp(&self.dot, place, paint(GLOW), 256 - back * 20);
        }
    }

    fn draw_lamp(&mut self, n: u64) {
        let n = i32::try_from(n % u64::from(u32::MAX / 4)).unwrap_or(0);
        let unit = self.unit;
        let floor = unit * 60;
        let (from, to) = (unit * 10, signed(self.canvas.width) - unit * 10);
        let (step, side) = (n % CROSSING, n / CROSSING % 2);
        let along = if side == 0 { step } else { CROSSING - step };
        let x = from + (to - from) * along / CROSSING;
        let phase = n % BOUNCE;
        let y = floor - unit * 38 * 4 * phase * (BOUNCE - phase) / (BOUNCE * BOUNCE);
        let halo = centred(&self.halo, (x, y));
        self.canvas.stamp(&self.halo, halo, paint(GLOW_DEEP), 150);
        let lamp = centred(&self.lamp, (x, y));
        self.canvas.stamp(&self.lamp, lamp, paint(GLOW), 256);
    }

    fn draw_clock(&mut self, n: u64, wall: OffsetDateTime) {
        let unit = unsigned(self.unit);
        let (hour, minute, second, ms) = wall.to_hms_milli();
        let clock = format!("{hour:02}:{minute:02}:{second:02}.{ms:03}");
        let place = (unit * 8, unit * 24);
        self.digits
            .write(&mut self.canvas, place, &clock, paint(INK));
        let label = (unit * 8, unit * 45);
        let next = self
            .words
            .write(&mut self.canvas, label, "FRAME ", paint(INK_SOFT));
        let number = format!("{n:07}");
        let place = (next, unit * 45);
        self.words
            .write(&mut self.canvas, place, &number, paint(INK));
    }

    fn draw_code(&mut self, n: u64) {
        let (width, height) = (self.canvas.width, self.canvas.height);
        let (cell, row) = (width / CODE_BITS, code_row(height));
        for bit in 0..CODE_BITS {
            let is_set = n >> bit & 1 == 1;
            for (y, is_white) in [(height - 2 * row, is_set), (height - row, !is_set)] {
                let area = Area {
                    x: bit * cell,
                    y,
                    width: cell,
                    height: row,
                };
                let shade = if is_white { 235 } else { 16 };
                self.canvas.fill(area, paint((shade, shade, shade)));
            }
        }
    }
}

/// Height of a row of boxes: even, and wide enough to live through encoding.
pub(super) const fn code_row(height: usize) -> usize {
    (height / 60).next_multiple_of(2)
}

/// What is the same in every picture.
fn backdrop((width, height): (usize, usize), unit: i32, words: &Font) -> Canvas {
    let mut canvas = Canvas::new(width, height, paint((11, 11, 15)));
    let rows = height / 2;
    for row in 0..rows {
        let down = signed(row) * 256 / signed(rows);
        let shade = paint((
            14 + 26 * down / 256,
            13 + 8 * down / 256,
            24 + 16 * down / 256,
        ));
        let line = Area {
            x: 0,
            y: row * 2,
            width,
            height: 2,
        };
        canvas.fill(line, shade);
    }
    let u = unsigned(unit);
    let place = (u * 8, u * 9);
    let next = words.write(&mut canvas, place, "LAMPLIGHT", paint(GLOW));
    words.write(
        &mut canvas,
        (next + u * 2, u * 9),
        "TEST PATTERN",
        paint(INK_SOFT),
    );
    let place = (u * 8, u * 37);
    words.write(&mut canvas, place, "UTC", paint(INK_SOFT));
    let dot = disc(unit * 4 / 5, 1);
    for n in 0..DOTS {
        let at = centred(&dot, dial_place(width, unit, n));
        let strength = if n % 15 == 0 { 200 } else { 70 };
        canvas.stamp(&dot, at, paint(INK_SOFT), strength);
    }
    draw_bars(&mut canvas, u);
    canvas
}

fn draw_bars(canvas: &mut Canvas, unit: usize) {
    let (left, gap) = (unit * 8, unit);
    let each = (canvas.width - 2 * left) / BARS.len();
    let size = (each - gap, unit * 10);
    let bar = block(size, signed(unit));
    for (n, colour) in BARS.into_iter().enumerate() {
        let place = (signed(left + n * each), signed(unit * 70));
        canvas.stamp(&bar, place, paint(colour), 200);
    }
}

/// The middle of a dot of the dial; 0 is at the top.
fn dial_place(width: usize, unit: i32, n: i32) -> (i32, i32) {
    let degrees = n.rem_euclid(DOTS) * 360 / DOTS;
    let radius = unit * 17;
    let middle = (signed(width) - unit * 34, unit * 32);
    (
        middle.0 + radius * sine(degrees) / 1_024,
        middle.1 - radius * sine(degrees + 90) / 1_024,
    )
}

/// 1 024 times the sine, within two, by Bhaskara's formula.
fn sine(degrees: i32) -> i32 {
    let degrees = degrees.rem_euclid(360);
    let (half, sign) = if degrees < 180 {
        (degrees, 1)
    } else {
        (degrees - 180, -1)
    };
    let product = half * (180 - half);
    sign * 4_096 * product / (40_500 - product)
}

/// A disc that fades out over `soft` samples.
fn disc(radius: i32, soft: i32) -> Mask {
    let size = unsigned(2 * radius + 4);
    let middle = signed(size) / 2;
    Mask::new(size, size, |x, y| {
        let distance = length((x - middle) * STEP, (y - middle) * STEP);
        if soft <= 1 {
            return coverage(distance - radius * STEP);
        }
        let left = (radius * STEP - distance).clamp(0, soft * STEP);
        let part = left * 255 / (soft * STEP);
        level(part * part / 255)
    })
}

/// A block with round corners.
fn block((width, height): (usize, usize), radius: i32) -> Mask {
    let size = (signed(width) * STEP, signed(height) * STEP);
    Mask::new(width, height, |x, y| {
        let place = (
            x * STEP + STEP / 2 - size.0 / 2,
            y * STEP + STEP / 2 - size.1 / 2,
        );
        coverage(rounded_box(place, size, radius * STEP))
    })
}

fn centred(mask: &Mask, (x, y): (i32, i32)) -> (i32, i32) {
    let half = signed(mask.width()) / 2;
    (x - half, y - half)
}
