//! A typeface of single strokes, drawn at any size from paths on a grid of 12 by 20.

use std::collections::HashMap;

use super::canvas::{Canvas, Mask, Paint, STEP, coverage, segment, signed, unsigned};

/// Height of a capital on the grid.
const CAP: i32 = 20;
/// Every digit takes this much, so that a running number stands still.
const DIGIT: i32 = 12;
/// Straight pieces of a curve.
const PIECES: i32 = 6;

/// Strokes of a character: move, line, and quadratic curve, as in SVG; y grows downwards.
const fn strokes(c: char) -> Option<&'static str> {
    Some(match c {
        '0' => "M0 6 Q0 0 6 0 Q12 0 12 6 L12 14 Q12 20 6 20 Q0 20 0 14 L0 6",
        '1' => "M3 4 L8 0 L8 20",
        '2' => "M0 5 Q1 0 6 0 Q12 0 12 5 Q12 9 8 13 L0 20 L12 20",
        '3' => "M0 4 Q1 0 6 0 Q12 0 12 5 Q12 9 7 9 L5 9 M7 9 Q12 10 12 14 Q12 20 6 20 Q1 20 0 16",
        '4' => "M9 20 L9 0 L0 14 L12 14",
        '5' => "M11 0 L2 0 L1 9 Q3 7 6 7 Q12 7 12 13 Q12 20 6 20 Q1 20 0 16",
        '6' => "M11 3 Q9 0 6 0 Q0 0 0 10 L0 14 Q0 20 6 20 Q12 20 12 14 Q12 8 6 8 Q0 8 0 14",
        '7' => "M0 0 L12 0 L5 20",
        '8' => {
            "M6 9 Q1 9 1 5 Q1 0 6 0 Q11 0 11 5 Q11 9 6 9 Q0 9 0 14 Q0 20 6 20 Q12 20 12 14 \
             Q12 9 6 9"
        }
        '9' => "M1 17 Q3 20 6 20 Q12 20 12 10 L12 6 Q12 0 6 0 Q0 0 0 6 Q0 12 6 12 Q12 12 12 6",
        'A' => "M0 20 L6 0 L12 20 M2 14 L10 14",
        'C' => "M12 5 Q11 0 6 0 Q0 0 0 6 L0 14 Q0 20 6 20 Q11 20 12 15",
        'D' => "M0 0 L0 20 L5 20 Q12 20 12 13 L12 7 Q12 0 5 0 L0 0",
        'E' => "M10 0 L0 0 L0 20 L10 20 M0 10 L8 10",
        'F' => "M10 0 L0 0 L0 20 M0 10 L8 10",
        'G' => "M12 5 Q11 0 6 0 Q0 0 0 6 L0 14 Q0 20 6 20 Q12 20 12 14 L12 11 L7 11",
        'H' => "M0 0 L0 20 M12 0 L12 20 M0 10 L12 10",
        'I' => "M0 0 L0 20",
        'L' => "M0 0 L0 20 L10 20",
        'M' => "M0 20 L0 0 L7 12 L14 0 L14 20",
        'N' => "M0 20 L0 0 L12 20 L12 0",
        'O' => "M0 6 Q0 0 6 0 Q12 0 12 6 L12 14 Q12 20 6 20 Q0 20 0 14 L0 6",
        'P' => "M0 20 L0 0 L6 0 Q12 0 12 6 Q12 12 6 12 L0 12",
        'R' => "M0 20 L0 0 L6 0 Q12 0 12 6 Q12 11 6 11 L0 11 M6 11 L12 20",
        'S' => "M11 4 Q10 0 6 0 Q1 0 1 5 Q1 9 6 10 Q12 11 12 15 Q12 20 6 20 Q1 20 0 16",
        'T' => "M0 0 L12 0 M6 0 L6 20",
        'U' => "M0 0 L0 14 Q0 20 6 20 Q12 20 12 14 L12 0",
        'V' => "M0 0 L6 20 L12 0",
        'W' => "M0 0 L4 20 L8 4 L12 20 L16 0",
        'X' => "M0 0 L12 20 M12 0 L0 20",
        'Y' => "M0 0 L6 10 L12 0 M6 10 L6 20",
        ':' => "M0 6 L0 6 M0 15 L0 15",
        '.' => "M0 20 L0 20",
        '-' => "M0 11 L7 11",
        _ => return None,
    })
}

type Point = (i32, i32);

/// The straight pieces of a path, in grid units times `scale` over [`CAP`].
fn pieces(path: &str, scale: i32) -> Vec<(Point, Point)> {
    let mut numbers = path
        .split([' ', 'M', 'L', 'Q'])
        .filter_map(|word| word.parse::<i32>().ok());
    let mut point = || {
        let x = numbers.next().unwrap_or(0);
        (x * scale / CAP, numbers.next().unwrap_or(0) * scale / CAP)
    };
    let mut out = Vec::new();
    let mut at = (0, 0);
    for command in path.chars() {
        match command {
            'M' => at = point(),
            'L' => {
                let to = point();
                out.push((at, to));
                at = to;
            }
            'Q' => {
                let (control, to) = (point(), point());
                let mut last = at;
                for n in 1..=PIECES {
                    let next = quadratic([at, control, to], n);
                    out.push((last, next));
                    last = next;
                }
                at = to;
            }
            _ => {}
        }
    }
    out
}

/// The point of a quadratic curve after `n` of [`PIECES`].
const fn quadratic([from, control, to]: [Point; 3], n: i32) -> Point {
    let left = PIECES - n;
    let (a, b, c) = (left * left, 2 * left * n, n * n);
    let whole = PIECES * PIECES;
    (
        (from.0 * a + control.0 * b + to.0 * c) / whole,
        (from.1 * a + control.1 * b + to.1 * c) / whole,
    )
}

struct Glyph {
    mask: Mask,
    advance: i32,
}

/// The typeface at one size and weight.
pub(super) struct Font {
    glyphs: HashMap<char, Glyph>,
    margin: i32,
    space: i32,
}

impl Font {
    /// Prepares the characters of `alphabet` with capitals `cap` samples high, strokes `weight`
    /// samples wide and `gap` samples between characters.
    pub(super) fn new(alphabet: &str, cap: i32, weight: i32, gap: i32) -> Self {
        let margin = weight / 2 + 2;
        let glyph = |c| {
            let lines = pieces(strokes(c)?, cap * STEP);
            let right = lines.iter().map(|(a, b)| a.0.max(b.0)).max().unwrap_or(0);
            let right = (right + STEP - 1) / STEP;
            let alpha = |x: i32, y: i32| {
                let place = ((x - margin) * STEP, (y - margin) * STEP);
                let distances = lines.iter().map(|(a, b)| segment(place, *a, *b));
                coverage(distances.min().unwrap_or(i32::MAX) - weight * STEP / 2)
            };
            let (width, height) = (right + 2 * margin, cap + 2 * margin);
            let mask = Mask::new(unsigned(width), unsigned(height), alpha);
            let digit = (c.is_ascii_digit()).then_some(DIGIT * cap / CAP);
            let advance = digit.unwrap_or(right) + weight + gap;
            Some((c, Glyph { mask, advance }))
        };
        Self {
            glyphs: alphabet.chars().filter_map(glyph).collect(),
            margin,
            space: cap / 2 + gap,
        }
    }

    /// Writes `text` with the upper left corner of its first capital at (`x`, `y`); returns where
    /// the next character would stand.
    pub(super) fn write(
        &self,
        canvas: &mut Canvas,
        (x, y): (usize, usize),
        text: &str,
        paint: Paint,
    ) -> usize {
        let mut left = signed(x);
        for c in text.chars() {
            let Some(glyph) = self.glyphs.get(&c) else {
                left += self.space;
                continue;
            };
            let place = (left - self.margin, signed(y) - self.margin);
            canvas.stamp(&glyph.mask, place, paint, 256);
            left += glyph.advance;
        }
        unsigned(left)
    }
}
