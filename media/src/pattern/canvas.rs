//! Pictures in planar 4:2:0, and masks of paint to lay on them.
//!
//! Drawing goes row by row over byte slices; what is the same in every picture is drawn once.
//! Masks are made with integers only, so that a picture is the same on every machine.

/// A colour in BT.709 limited range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Paint {
    pub(super) luma: u8,
    pub(super) cb: u8,
    pub(super) cr: u8,
}

impl Paint {
    /// From 8-bit sRGB.
    pub(super) fn rgb(red: i32, green: i32, blue: i32) -> Self {
        Self {
            luma: level(16 + (47 * red + 157 * green + 16 * blue + 128) / 256),
            cb: level(128 + (112 * blue - 26 * red - 86 * green) / 256),
            cr: level(128 + (112 * red - 102 * green - 10 * blue) / 256),
        }
    }
}

/// A number in the range of a sample.
pub(super) fn level(value: i32) -> u8 {
    u8::try_from(value.clamp(0, 255)).unwrap_or(u8::MAX)
}

/// A length or place in a picture as a signed number.
pub(super) fn signed(n: usize) -> i32 {
    i32::try_from(n).expect("pictures are far smaller than i32")
}

/// A length or place that is not negative.
pub(super) fn unsigned(n: i32) -> usize {
    usize::try_from(n).unwrap_or(0)
}

/// A rectangle in luma samples.
#[derive(Clone, Copy, Debug)]
pub(super) struct Area {
    pub(super) x: usize,
    pub(super) y: usize,
    pub(super) width: usize,
    pub(super) height: usize,
}

/// A picture; width and height are even.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Canvas {
    pub(super) width: usize,
    pub(super) height: usize,
    /// Luma, Cb, Cr.
    pub(super) planes: [Vec<u8>; 3],
}

impl Canvas {
    /// A picture of one colour.
    pub(super) fn new(width: usize, height: usize, paint: Paint) -> Self {
        let size = width * height;
        Self {
            width,
            height,
            planes: [
                vec![paint.luma; size],
                vec![paint.cb; size / 4],
                vec![paint.cr; size / 4],
            ],
        }
    }

    /// Becomes a copy of a picture of the same size.
    pub(super) fn copy_from(&mut self, other: &Self) {
        for (to, from) in self.planes.iter_mut().zip(&other.planes) {
            to.copy_from_slice(from);
        }
    }

    /// Paints a rectangle, as far as it is inside.
    pub(super) fn fill(&mut self, area: Area, paint: Paint) {
        let right = (area.x + area.width).min(self.width);
        let bottom = (area.y + area.height).min(self.height);
        if area.x >= right || area.y >= bottom {
            return;
        }
        let [luma, cb, cr] = &mut self.planes;
        for row in luma.chunks_exact_mut(self.width).take(bottom).skip(area.y) {
            row[area.x..right].fill(paint.luma);
        }
        let (left, right) = (area.x / 2, right.div_ceil(2));
        let (top, bottom) = (area.y / 2, bottom.div_ceil(2));
        for (plane, level) in [(cb, paint.cb), (cr, paint.cr)] {
            let rows = plane.chunks_exact_mut(self.width / 2);
            for row in rows.take(bottom).skip(top) {
                row[left..right].fill(level);
            }
        }
    }

    /// Lays paint on through a mask whose upper left corner is at (`x`, `y`), as far as it is
    /// inside; `strength` of 256 lays on all of it.
    pub(super) fn stamp(&mut self, mask: &Mask, (x, y): (i32, i32), paint: Paint, strength: i32) {
        let strength = u32::try_from(strength.clamp(0, 256)).unwrap_or(0);
        let width = self.width;
        let [luma, cb, cr] = &mut self.planes;
        blend(luma, width, &mask.full, (x, y), (paint.luma, strength));
        let (x, y) = (x.div_euclid(2), y.div_euclid(2));
        blend(cb, width / 2, &mask.half, (x, y), (paint.cb, strength));
        blend(cr, width / 2, &mask.half, (x, y), (paint.cr, strength));
    }
}

fn blend(
    plane: &mut [u8],
    plane_width: usize,
    alpha: &Alpha,
    (x, y): (i32, i32),
    (paint, strength): (u8, u32),
) {
    let (left, above) = (unsigned(-x), unsigned(-y));
    let (x, y) = (unsigned(x), unsigned(y));
    if left >= alpha.width || x >= plane_width {
        return;
    }
    let count = (alpha.width - left).min(plane_width - x);
    let paint = u32::from(paint);
    let sources = alpha.levels.chunks_exact(alpha.width).skip(above);
    let targets = plane.chunks_exact_mut(plane_width).skip(y);
    for (source, target) in sources.zip(targets) {
        let source = &source[left..left + count];
        for (to, alpha) in target[x..x + count].iter_mut().zip(source) {
            if *alpha == 0 {
                continue;
            }
            let alpha = u32::from(*alpha) * strength;
            let mixed = u32::from(*to) * (65_280 - alpha) + paint * alpha + 32_640;
            *to = u8::try_from(mixed / 65_280).unwrap_or(u8::MAX);
        }
    }
}

#[derive(Clone, Debug)]
struct Alpha {
    width: usize,
    levels: Vec<u8>,
}

/// How much paint goes where.
#[derive(Clone, Debug)]
pub(super) struct Mask {
    full: Alpha,
    half: Alpha,
}

impl Mask {
    /// A mask of at least this size, with the paint `alpha` says for each place.
    pub(super) fn new(width: usize, height: usize, alpha: impl Fn(i32, i32) -> u8) -> Self {
        let (width, height) = (width.next_multiple_of(2), height.next_multiple_of(2));
        let alpha = &alpha;
        let levels: Vec<u8> = (0..signed(height))
            .flat_map(|y| (0..signed(width)).map(move |x| alpha(x, y)))
            .collect();
        let pairs = levels.chunks_exact(2 * width);
        let half = pairs.flat_map(|rows| {
            let (upper, lower) = rows.split_at(width);
            let quads = upper.chunks_exact(2).zip(lower.chunks_exact(2));
            quads.map(|(a, b)| {
                let sum: i32 = a.iter().chain(b).map(|v| i32::from(*v)).sum();
                level((sum + 2) / 4)
            })
        });
        let half = Alpha {
            width: width / 2,
            levels: half.collect(),
        };
        let full = Alpha { width, levels };
        Self { full, half }
    }

    /// Width in luma samples.
    pub(super) const fn width(&self) -> usize {
        self.full.width
    }
}

/// Sub-steps of a sample in which shapes measure distance.
pub(super) const STEP: i32 = 16;

/// Paint for a place `distance` steps outside (negative: inside) of a shape's edge, smoothed over
/// one sample.
pub(super) fn coverage(distance: i32) -> u8 {
    level((STEP / 2 - distance) * 255 / STEP)
}

/// Length of a vector.
pub(super) fn length(x: i32, y: i32) -> i32 {
    let (x, y) = (i64::from(x), i64::from(y));
    i32::try_from((x * x + y * y).isqrt()).unwrap_or(i32::MAX)
}

/// Distance of a point from a box around the origin with rounded corners.
pub(super) fn rounded_box((x, y): (i32, i32), (width, height): (i32, i32), radius: i32) -> i32 {
    let (x, y) = (x.abs() - width / 2 + radius, y.abs() - height / 2 + radius);
    length(x.max(0), y.max(0)) + x.max(y).min(0) - radius
}

/// Distance of a point from the line between two.
pub(super) fn segment(point: (i32, i32), from: (i32, i32), to: (i32, i32)) -> i32 {
    let (bx, by) = (i64::from(to.0 - from.0), i64::from(to.1 - from.1));
    let (px, py) = (i64::from(point.0 - from.0), i64::from(point.1 - from.1));
    let square = bx * bx + by * by;
    let along = (px * bx + py * by).clamp(0, square);
    let (x, y) = if square == 0 {
        (px, py)
    } else {
        (px - bx * along / square, py - by * along / square)
    };
    i32::try_from((x * x + y * y).isqrt()).unwrap_or(i32::MAX)
}
