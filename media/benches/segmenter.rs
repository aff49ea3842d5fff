//! Cutting pictures into LL-HLS parts: frames per second, beside only gathering the same frames.
//!
//! Fixed input: 60 s at 60 frames/s with a keyframe each 2 s, parts of 500 ms.

use std::hint::black_box;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use lamplight_media::frame::{Codec, Frame, Shape, TrackId, TrackInfo};
use lamplight_media::hls::{Cut, Targets, VideoLine};
use lamplight_media::time::MediaTime;

const TARGETS: Targets = Targets {
    part: Duration::from_millis(500),
    segment: Duration::from_secs(2),
    target: Duration::from_secs(4),
    gap_after: Duration::from_secs(2),
};
const FRAMES: i64 = 3_600;

fn show() -> Vec<Arc<Frame>> {
    let info = Arc::new(TrackInfo {
        codec: Codec::H264,
        generation: 0,
        shape: Shape::Video {
            width: 1_280,
            height: 720,
        },
        config: Bytes::new(),
        reorder_frames: Some(0),
    });
    let frame = |n: i64| {
        let t = MediaTime::ZERO.shifted(n * 1_000_000 / 60);
        Arc::new(Frame {
            track: TrackId::Video,
            info: Arc::clone(&info),
            dts: t,
            pts: t,
            duration: None,
            is_key: n % 120 == 0,
            is_discardable: false,
            discontinuities: 0,
            payload: Bytes::from_static(&[0, 0, 0, 1, 0x65]),
            rtp: OnceLock::new(),
            flv: OnceLock::new(),
            chunks: OnceLock::new(),
            arrived: OnceLock::new(),
        })
    };
    (0..FRAMES).map(frame).collect()
}

/// Parts cut.
fn cut(frames: &[Arc<Frame>]) -> usize {
    let mut line = VideoLine::new(TARGETS);
    let mut cuts: Vec<Cut> = frames
        .iter()
        .flat_map(|f| line.push(Arc::clone(f)))
        .collect();
    cuts.extend(line.finish());
    cuts.iter()
        .filter(|cut| matches!(cut, Cut::Part(_)))
        .count()
}

/// The baseline: the same frames in groups of a part's number.
fn gather(frames: &[Arc<Frame>]) -> usize {
    let groups: Vec<Vec<Arc<Frame>>> = frames.chunks(30).map(<[_]>::to_vec).collect();
    black_box(groups).len()
}

fn segmenter(c: &mut Criterion) {
    let frames = show();
    assert_eq!(cut(&frames), gather(&frames), "two parts a second");
    let mut group = c.benchmark_group("hls/segmenter");
    group.throughput(Throughput::Elements(FRAMES.unsigned_abs()));
    group.bench_function("cut", |b| b.iter(|| cut(black_box(&frames))));
    group.bench_function("gather", |b| b.iter(|| gather(black_box(&frames))));
    group.finish();
}

criterion_group!(benches, segmenter);
criterion_main!(benches);
