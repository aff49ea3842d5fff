//! Tests of the converters on media they encode themselves.

mod fault;
mod lanes;
mod silence;
mod sync;
mod thumbnail;
mod trouble;

pub(crate) use self::fault::Fault;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use ffmpeg_next::util::format::Pixel;
use ffmpeg_next::util::frame::Video;
use time::OffsetDateTime;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::audio::SoundConverter;
use super::decoder::VideoDecoder;
use super::encoder::{AudioCodec, AudioEncoder, Encoded, VideoEncoder, VideoSettings};
use super::ladder::Ladder;
use super::video::{KeyGrid, PictureEncoder, Target};
use super::{ConvertConfig, run};
use crate::bitstream::h264::{NalKind, nals};
use crate::bitstream::hevc;
use crate::broadcast::{BroadcastKey, Broadcasts, Facts, Limits, Publisher, Start};
use crate::frame::{Codec, Frame, Kind, Sample, Shape, TrackId, TrackInfo};
use crate::time::{MediaTime, SourceTime};

const FRAME_US: i64 = 40_000;
const CLEAN: Target = Target::Clean { lines_max: 1_080 };

fn moving_picture(n: u8) -> Video {
    let mut picture = Video::new(Pixel::YUV420P, 160, 90);
    for plane in 0..3 {
        let stride = picture.stride(plane);
        for (at, byte) in picture.data_mut(plane).iter_mut().enumerate() {
            let (x, y) = (at % stride, at / stride);
            let sum = x * 3 + y * 5 + usize::from(n) * 7;
            *byte = u8::try_from(sum % 200).unwrap();
        }
    }
    picture
}

/// A picture with B-frames and keyframes 10 s apart, as an untouched OBS sends it.
fn source(seconds: i64) -> (TrackInfo, Vec<Encoded>) {
    source_of(seconds, 250)
}

/// The same with so many pictures from one keyframe to the next.
fn source_of(seconds: i64, gop: u32) -> (TrackInfo, Vec<Encoded>) {
    let settings = VideoSettings {
        width: 160,
        height: 90,
        bitrate_bps: 500_000,
        frame_rate: 25,
        b_frames: 2,
        gop,
    };
    let mut encoder = VideoEncoder::open(["libx264"], &settings).unwrap();
    let mut out = Vec::new();
    for n in 0..seconds * 25 {
        let mut picture = moving_picture(u8::try_from(n % 100).unwrap());
        // 80 ms later, so that decode times are not negative.
        let t = n * FRAME_US + 2 * FRAME_US;
        let is_key = n % i64::from(gop) == 0;
        out.extend(encoder.encode(&mut picture, t, is_key).unwrap());
    }
    out.extend(encoder.finish());
    (encoder.info().unwrap().clone(), out)
}

fn frame(info: &Arc<TrackInfo>, unit: &Encoded) -> Frame {
    Frame {
        track: TrackId::Video,
        info: Arc::clone(info),
        dts: MediaTime::from_micros(unit.dts),
        pts: MediaTime::from_micros(unit.pts),
        duration: None,
        is_key: unit.is_key,
        is_discardable: false,
        discontinuities: 0,
        payload: unit.payload.clone(),
        rtp: OnceLock::new(),
        flv: OnceLock::new(),
        chunks: OnceLock::new(),
        arrived: OnceLock::new(),
    }
}

#[test]
fn the_source_fixture_has_reordered_frames_and_one_keyframe() {
    let (info, units) = source(5);
    assert_eq!(info.reorder_frames, Some(2));
    assert!(units.iter().any(|u| u.pts > u.dts));
    assert_eq!(units.iter().filter(|u| u.is_key).count(), 1);
    assert!(units.iter().all(|u| u.dts >= 0 && u.pts >= u.dts));
}

#[test]
fn clean_keeps_each_t_of_the_source_and_has_keyframes_on_the_grid_only() {
    let (info, units) = source(7);
    let info = Arc::new(info);
    let mut decoder = VideoDecoder::open(&info).unwrap();
    let mut pictures = Vec::new();
    for unit in &units {
        pictures.extend(decoder.decode(&frame(&info, unit)));
    }
    pictures.extend(decoder.finish());
    let mut grid = KeyGrid::new(Duration::from_secs(2));
    let mut encoder = PictureEncoder::new(
        vec!["no_such_encoder", "libx264"],
        CLEAN,
        Ladder::standard(),
    );
    let mut made = Vec::new();
    for (t, picture) in pictures {
        let is_key = grid.is_key(t, false, Duration::from_secs(10));
        made.extend(
            encoder
                .encode((t, picture), is_key, Facts::default)
                .unwrap(),
        );
    }
    let mut wanted: Vec<i64> = units.iter().map(|u| u.pts).collect();
    wanted.sort_unstable();
    let got: Vec<i64> = made.iter().map(|u| u.pts).collect();
    assert_eq!(got, wanted);
    assert!(made.iter().all(|u| u.pts == u.dts));
    let keys: Vec<i64> = made.iter().filter(|u| u.is_key).map(|u| u.pts).collect();
    assert_eq!(keys, [80_000, 2_000_000, 4_000_000, 6_000_000]);
    let clean = encoder.info().unwrap();
    assert_eq!(clean.reorder_frames, Some(0));
    assert_eq!(clean.picture_size(), Some((160, 90)));
    for unit in &made {
        let kinds = nals(&unit.payload).map(|n| NalKind::of(n.unwrap()[0]));
        let slices: Vec<_> = kinds.filter(|k| *k != NalKind::Sei).collect();
        let expected = if unit.is_key {
            NalKind::Idr
        } else {
            NalKind::Slice
        };
        assert_eq!(slices, [expected]);
    }
}

fn hex(digits: &str) -> Bytes {
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    (0..digits.len()).step_by(2).map(byte).collect()
}

/// Two red pictures of 64x64: those of x265, and those of libaom.
fn red_pictures() -> [(TrackInfo, [Bytes; 2]); 2] {
    let info = |codec, config| TrackInfo {
        codec,
        generation: 0,
        shape: Shape::Video {
            width: 64,
            height: 64,
        },
        config,
        reorder_frames: Some(0),
    };
    let sets = [
        "40010c01ffff01600000030090000003000003001e928090",
        "42010101600000030090000003000003001ea0208105964a924caf016808000003000800000300f040",
        "4401c172b42240",
    ];
    let [vps, sps, pps] = sets.map(|set| vec![hex(set)]);
    let config = hevc::Config::new(vps, sps, pps).unwrap().build().unwrap();
    let units = [
        "000000142801af0860f9eead5ffddfd7f7f452e672bfae60",
        "0000000b0201d0097e10c610c0fb8c",
    ];
    let hevc = (info(Codec::Hevc, config), units.map(hex));
    let sequence = "0a0a00000002afff9b5f2008";
    let key = "321a10009000082082200000c1b4e5c1a2503ec8d65dffa7985e2928";
    let inter = "321230038080fdf806c000596596281042009530";
    let config = hex(&["81000c00", sequence].concat());
    let units = [hex(&[sequence, key].concat()), hex(inter)];
    [hevc, (info(Codec::Av1, config), units)]
}

#[test]
fn hevc_and_av1_are_decoded_each_picture_at_its_t() {
    for (info, units) in red_pictures() {
        let info = Arc::new(info);
        let mut decoder = VideoDecoder::open(&info).unwrap();
        let mut pictures = Vec::new();
        for (n, payload) in units.into_iter().enumerate() {
            let t = i64::try_from(n).unwrap() * FRAME_US;
            let unit = Encoded {
                pts: t,
                dts: t,
                is_key: n == 0,
                payload,
            };
            pictures.extend(decoder.decode(&frame(&info, &unit)));
        }
        pictures.extend(decoder.finish());
        let times: Vec<i64> = pictures.iter().map(|(t, _)| *t).collect();
        assert_eq!(times, [0, FRAME_US], "{:?}", info.codec);
        for (_, picture) in &pictures {
            assert_eq!((picture.width(), picture.height()), (64, 64));
            assert!(picture.data(2)[0] > 200, "{:?} is not red", info.codec);
        }
    }
}

#[test]
fn a_damaged_access_unit_is_skipped_and_the_rest_is_decoded() {
    let (info, units) = source(2);
    let info = Arc::new(info);
    let mut decoder = VideoDecoder::open(&info).unwrap();
    let mut count = 0;
    for (n, unit) in units.iter().enumerate() {
        let mut frame = frame(&info, unit);
        if n == 10 {
            frame.payload = Bytes::from_static(&[0, 0, 0, 3, 0x41, 0xff, 0xff]);
        }
        count += decoder.decode(&frame).len();
    }
    count += decoder.finish().len();
    assert!(count >= units.len() - 2, "{count} of {}", units.len());
}

#[test]
fn an_encoder_that_does_not_exist_is_named_in_the_error() {
    let settings = VideoSettings {
        width: 64,
        height: 64,
        bitrate_bps: 400_000,
        frame_rate: 30,
        b_frames: 0,
        gop: 60,
    };
    let error = VideoEncoder::open(["no_such_encoder"], &settings).unwrap_err();
    assert!(error.to_string().contains("no_such_encoder"), "{error}");
}

/// AAC of a second of silence, then a tone; packets with the T of their first decoded sample.
fn tone(onset: usize, packets: usize) -> (TrackInfo, Vec<(i64, Bytes)>) {
    let mut encoder = AudioEncoder::open(AudioCodec::Aac, 128_000).unwrap();
    let mut out = Vec::new();
    for n in 0..packets {
        let samples: Vec<[f32; 2]> = (n * 1_024..(n + 1) * 1_024)
            .map(|at| {
                let is_square_up = (at / 24) % 2 == 0;
                let level = if at < onset { 0.0 } else { 0.5 };
                [if is_square_up { level } else { -level }; 2]
            })
            .collect();
        out.extend(
            encoder
                .encode(&samples, i64::try_from(n * 1_024).unwrap())
                .unwrap(),
        );
    }
    let priming = i64::from(encoder.priming());
    let t = |n: usize| (i64::try_from(n * 1_024).unwrap() - priming) * 1_000_000 / 48_000;
    let timed = out.into_iter().enumerate().map(|(n, p)| (t(n), p));
    (encoder.info(), timed.collect())
}

fn sound(info: &Arc<TrackInfo>, t: i64, payload: &Bytes) -> Frame {
    let unit = Encoded {
        dts: t,
        pts: t,
        is_key: true,
        payload: payload.clone(),
    };
    Frame {
        track: TrackId::Audio,
        ..frame(info, &unit)
    }
}

fn convert(codec: AudioCodec, frames: &[Frame]) -> (TrackInfo, Vec<(i64, Bytes)>) {
    let mut converter = SoundConverter::open(codec).unwrap();
    let mut out = Vec::new();
    for frame in frames {
        out.extend(converter.push(frame).unwrap());
    }
    (converter.info(), out)
}

/// T of the first sample that is loud, in microseconds, heard by a decoder that skips nothing.
fn onset(info: &TrackInfo, packets: &[(i64, Bytes)]) -> i64 {
    let name = if info.codec == Codec::Opus {
        "libopus"
    } else {
        "aac"
    };
    let found = ffmpeg_next::decoder::find_by_name(name).unwrap();
    let mut context = ffmpeg_next::codec::Context::new_with_codec(found);
    let mut head = info.config.to_vec();
    if info.codec == Codec::Opus {
        // Pre-skip of zero: the first packet here need not be the first of the stream.
        head[10] = 0;
        head[11] = 0;
    }
    super::ffi::set_extradata(&mut context, &head).unwrap();
    let mut decoder = context.decoder().audio().unwrap();
    for (t, packet) in packets {
        decoder
            .send_packet(&ffmpeg_next::Packet::copy(packet))
            .unwrap();
        let mut heard = ffmpeg_next::frame::Audio::empty();
        while decoder.receive_frame(&mut heard).is_ok() {
            if let Some(at) = loud(&heard) {
                return t + i64::try_from(at).unwrap() * 1_000_000 / 48_000;
            }
        }
    }
    panic!("no tone was heard");
}

/// The first loud sample of the left channel.
fn loud(heard: &ffmpeg_next::frame::Audio) -> Option<usize> {
    if heard.is_packed() {
        let pairs = heard.data(0)[..heard.samples() * 4].chunks_exact(4);
        let mut levels = pairs.map(|b| i16::from_ne_bytes([b[0], b[1]]));
        return levels.position(|s| s.unsigned_abs() > 4_000);
    }
    heard.plane::<f32>(0).iter().position(|s| s.abs() > 0.12)
}

#[test]
fn opus_packets_are_20_ms_apart_and_a_tone_starts_within_10_ms_of_its_t() {
    let (info, packets) = tone(48_000, 100);
    let info = Arc::new(info);
    // Stamps in whole milliseconds, as RTMP has them.
    let frames: Vec<Frame> = packets
        .iter()
        .map(|(t, p)| sound(&info, (t + 100_000) / 1_000 * 1_000, p))
        .collect();
    let (opus, made) = convert(AudioCodec::Opus, &frames);
    assert!(opus.config.starts_with(b"OpusHead"));
    for pair in made.windows(2) {
        assert_eq!(pair[1].0 - pair[0].0, 20_000);
    }
    let error = onset(&opus, &made) - 1_100_000;
    assert!(error.abs() <= 10_000, "off by {error} us");
}

#[test]
fn aac_of_an_opus_source_has_frames_of_1_024_samples_and_a_tone_starts_within_10_ms_of_its_t() {
    let (info, packets) = tone(48_000, 100);
    let info = Arc::new(info);
    let frames: Vec<Frame> = packets
        .iter()
        .map(|(t, p)| sound(&info, t + 100_000, p))
        .collect();
    let (opus, packets) = convert(AudioCodec::Opus, &frames);
    let opus = Arc::new(opus);
    let frames: Vec<Frame> = packets.iter().map(|(t, p)| sound(&opus, *t, p)).collect();
    let (aac, made) = convert(AudioCodec::Aac, &frames);
    assert_eq!(aac.codec, Codec::Aac);
    for pair in made.windows(2) {
        assert!((21_332..=21_334).contains(&(pair[1].0 - pair[0].0)));
    }
    let error = onset(&aac, &made) - 1_100_000;
    assert!(error.abs() <= 10_000, "off by {error} us");
}

#[test]
fn a_hole_in_the_sound_is_filled_and_one_beyond_10_s_starts_a_new_line() {
    let (info, packets) = tone(0, 100);
    let info = Arc::new(info);
    for (hole_us, is_filled) in [(80_000, true), (3_000_000, true), (11_000_000, false)] {
        let shifted = packets.iter().enumerate().map(|(n, (t, p))| {
            let t = if n < 50 { *t } else { t + hole_us };
            sound(&info, t + 100_000, p)
        });
        let (_, made) = convert(AudioCodec::Opus, &shifted.collect::<Vec<_>>());
        let is_even = made.windows(2).all(|w| w[1].0 - w[0].0 == 20_000);
        assert_eq!(is_even, is_filled, "hole of {hole_us} us");
        let end = made.last().unwrap().0 + 20_000;
        let wanted = packets.last().unwrap().0 + 100_000 + hole_us + 21_333;
        assert!(
            (wanted - end).abs() < 30_000,
            "ends {} us off",
            wanted - end
        );
    }
}

fn open(info: TrackInfo) -> Publisher {
    open_in(&Broadcasts::new(Limits::default()), info)
}

fn open_in(hub: &Arc<Broadcasts>, info: TrackInfo) -> Publisher {
    let key = BroadcastKey::new("room_1");
    let wall = OffsetDateTime::UNIX_EPOCH;
    let mut publisher = hub.open(key, Instant::now(), wall).unwrap();
    publisher.set_track(Instant::now(), info).unwrap();
    publisher
}

fn publish(publisher: &mut Publisher, units: &[Encoded]) {
    for unit in units {
        let composition = u64::try_from(unit.pts - unit.dts).unwrap();
        let sample = Sample {
            kind: Kind::Video,
            dts: SourceTime::from_micros(unit.dts),
            composition: Duration::from_micros(composition),
            samples: 0,
            is_key: unit.is_key,
            is_discardable: false,
            payload: unit.payload.clone(),
        };
        publisher.write(Instant::now(), sample);
    }
}

#[tokio::test]
async fn clean_runs_while_somebody_reads_it_and_starts_at_the_newest_keyframe() {
    let (info, units) = source(5);
    let mut publisher = open(info);
    publish(&mut publisher, &units);
    let broadcast = Arc::clone(publisher.broadcast());
    let cancel = CancellationToken::new();
    let config = Arc::new(ConvertConfig::default());
    let running = run(Arc::clone(&broadcast), config, cancel.clone());
    let reading = async {
        let mut cursor = broadcast.cursor(TrackId::Clean, Start::OldestKey);
        let mut frames = Vec::new();
        while frames.len() < 100 {
            frames.push(cursor.next().await.unwrap().frame);
        }
        cancel.cancel();
        frames
    };
    let ((), frames) = tokio::join!(running, reading);
    assert!(frames[0].is_key);
    assert!(
        frames
            .iter()
            .all(|f| f.pts == f.dts && f.track == TrackId::Clean)
    );
    let steps = frames.windows(2).map(|w| w[1].dts.micros_since(w[0].dts));
    assert!(steps.into_iter().all(|s| s == FRAME_US));
    let keys = frames.iter().filter(|f| f.is_key).count();
    assert_eq!(
        keys,
        2 + usize::from(frames[99].dts.as_micros() >= 4_000_000)
    );
}

#[tokio::test(start_paused = true)]
async fn a_track_that_is_no_longer_made_holds_nothing_old() {
    let (info, units) = source(1);
    let mut publisher = open(info.clone());
    // As many as may wait: nobody looks at the clock while the threads work.
    publish(&mut publisher, &units[..16]);
    let broadcast = Arc::clone(publisher.broadcast());
    let cancel = CancellationToken::new();
    let running = run(Arc::clone(&broadcast), Arc::default(), cancel.clone());
    let watching = async {
        let mut viewer = broadcast.cursor(TrackId::Clean, Start::NewestKey);
        viewer.next().await.unwrap();
        drop(viewer);
        tokio::time::sleep(Duration::from_secs(30)).await;
        let mut late = broadcast.cursor(TrackId::Clean, Start::NewestKey);
        assert!(late.try_next().is_none());
        cancel.cancel();
    };
    tokio::join!(running, watching);
}

#[tokio::test]
async fn a_broadcast_without_a_working_encoder_says_so() {
    let (info, units) = source(1);
    let mut publisher = open(info);
    publish(&mut publisher, &units);
    let broadcast = Arc::clone(publisher.broadcast());
    let config = Arc::new(ConvertConfig {
        encoder: "no_such_encoder".into(),
        encoder_fallback: Vec::new(),
        ..ConvertConfig::default()
    });
    let cancel = CancellationToken::new();
    let running = run(Arc::clone(&broadcast), config, cancel.clone());
    let reading = async {
        let _cursor = broadcast.cursor(TrackId::Clean, Start::OldestKey);
        while broadcast.unavailable(TrackId::Clean).is_none() {
            tokio::task::yield_now().await;
            publish(&mut publisher, &units);
        }
        cancel.cancel();
    };
    tokio::join!(running, reading);
    assert_eq!(broadcast.unavailable(TrackId::Clean), Some("no_encoder"));
}

#[tokio::test]
async fn run_returns_when_the_broadcast_ends() {
    let (info, _) = source(1);
    let publisher = open(info);
    let broadcast = Arc::clone(publisher.broadcast());
    let running = run(broadcast, Arc::default(), CancellationToken::new());
    drop(publisher);
    running.await;
}

/// 44.1 kHz mono AAC, as phones send it.
fn mono_44100(packets: i64) -> (TrackInfo, Vec<Bytes>) {
    use ffmpeg_next::format::sample::{Sample as Format, Type};
    use ffmpeg_next::{ChannelLayout, codec, encoder, frame};
    let mut context = codec::Context::new_with_codec(encoder::find_by_name("aac").unwrap());
    context.set_flags(codec::Flags::GLOBAL_HEADER);
    let mut audio = context.encoder().audio().unwrap();
    audio.set_rate(44_100);
    audio.set_format(Format::F32(Type::Planar));
    audio.set_channel_layout(ChannelLayout::MONO);
    audio.set_channels(1);
    audio.set_time_base(ffmpeg_next::Rational(1, 44_100));
    let mut encoder = audio.open().unwrap();
    let mut out = Vec::new();
    for n in 0..packets {
        let mut frame = frame::Audio::new(Format::F32(Type::Planar), 1_024, ChannelLayout::MONO);
        for (at, sample) in frame.plane_mut::<f32>(0).iter_mut().enumerate() {
            *sample = if at / 32 % 2 == 0 { 0.3 } else { -0.3 };
        }
        frame.set_rate(44_100);
        frame.set_pts(Some(n * 1_024));
        encoder.send_frame(&frame).unwrap();
        let mut packet = ffmpeg_next::Packet::empty();
        while encoder.receive_packet(&mut packet).is_ok() {
            out.push(Bytes::copy_from_slice(packet.data().unwrap()));
        }
    }
    let info = TrackInfo {
        codec: Codec::Aac,
        generation: 0,
        shape: Shape::Audio {
            rate: 44_100,
            channels: 1,
        },
        config: super::ffi::extradata(&encoder).into(),
        reorder_frames: None,
    };
    (info, out)
}

#[test]
fn a_minute_of_mono_at_44_100_hz_becomes_a_minute_of_even_packets() {
    let (info, packets) = mono_44100(2_584);
    let info = Arc::new(info);
    let t = |n: usize| i64::try_from(n).unwrap() * 1_024_000 / 44_100 * 1_000;
    let frames = packets
        .iter()
        .enumerate()
        .map(|(n, p)| sound(&info, t(n), p));
    let (_, made) = convert(AudioCodec::Opus, &frames.collect::<Vec<_>>());
    assert!(made.windows(2).all(|w| w[1].0 - w[0].0 == 20_000));
    let behind = t(packets.len()) - (made.last().unwrap().0 + 20_000);
    assert!((0..40_000).contains(&behind), "{behind} us behind");
}

#[test]
fn a_change_of_size_reopens_the_encoder_with_a_keyframe() {
    let mut encoder = PictureEncoder::new(
        vec!["libx264"],
        Target::Clean { lines_max: 60 },
        Ladder::standard(),
    );
    let mut made = Vec::new();
    let mut sizes = Vec::new();
    for (t, width, height) in [(0, 80, 44), (1, 80, 44), (2, 160, 90), (3, 161, 61)] {
        let mut picture = Video::new(Pixel::YUV420P, width, height);
        for plane in 0..3 {
            picture.data_mut(plane).fill(100);
        }
        let t = t * FRAME_US;
        made.extend(encoder.encode((t, picture), false, Facts::default).unwrap());
        sizes.push(encoder.info().unwrap().picture_size().unwrap());
    }
    assert_eq!(sizes, [(80, 44), (80, 44), (106, 60), (158, 60)]);
    let keys: Vec<bool> = made.iter().map(|u| u.is_key).collect();
    assert_eq!(keys, [true, false, true, true]);
}

#[test]
fn a_picture_of_another_pixel_format_is_made_4_2_0() {
    let mut encoder = PictureEncoder::new(vec!["libx264"], CLEAN, Ladder::standard());
    let mut picture = Video::new(Pixel::YUV444P, 64, 64);
    for plane in 0..3 {
        picture.data_mut(plane).fill(100);
    }
    let made = encoder.encode((0, picture), true, Facts::default).unwrap();
    assert_eq!(made.len(), 1);
}

#[tokio::test]
async fn a_viewer_s_request_makes_the_next_picture_a_keyframe() {
    let (info, units) = source(5);
    let mut publisher = open(info);
    let (before, after) = units.split_at(30);
    publish(&mut publisher, before);
    let broadcast = Arc::clone(publisher.broadcast());
    let cancel = CancellationToken::new();
    let running = run(Arc::clone(&broadcast), Arc::default(), cancel.clone());
    let reading = async {
        let mut cursor = broadcast.cursor(TrackId::Clean, Start::OldestKey);
        let first = cursor.next().await.unwrap().frame.dts;
        let mut newest = first;
        while newest.micros_since(first) < 20 * FRAME_US {
            newest = cursor.next().await.unwrap().frame.dts;
        }
        cursor.request_keyframe();
        publish(&mut publisher, &after[..25]);
        loop {
            let frame = cursor.next().await.unwrap().frame;
            if frame.is_key {
                cancel.cancel();
                return frame.dts.micros_since(newest);
            }
        }
    };
    let ((), distance) = tokio::join!(running, reading);
    assert!(distance <= 12 * FRAME_US, "{distance} us later");
}

#[tokio::test]
async fn opus_runs_while_somebody_hears_it_and_stops_a_linger_later() {
    let (info, packets) = tone(0, 100);
    let mut publisher = open(info);
    let broadcast = Arc::clone(publisher.broadcast());
    let config = Arc::new(ConvertConfig {
        linger: Duration::ZERO,
        ..ConvertConfig::default()
    });
    let cancel = CancellationToken::new();
    let running = run(Arc::clone(&broadcast), config, cancel.clone());
    let mut send = |from: usize, to: usize| {
        for (t, payload) in &packets[from..to] {
            let sample = Sample {
                kind: Kind::Audio,
                dts: SourceTime::from_micros(t + 100_000),
                composition: Duration::ZERO,
                samples: 1_024,
                is_key: true,
                is_discardable: false,
                payload: payload.clone(),
            };
            publisher.write(Instant::now(), sample);
        }
    };
    let hearing = async {
        let mut cursor = broadcast.cursor(TrackId::Opus, Start::Live);
        // The converter starts at the live edge, so it must have its place first.
        while broadcast.users(TrackId::Audio) == 0 {
            tokio::task::yield_now().await;
        }
        send(0, 50);
        let mut heard = Vec::new();
        while heard.len() < 40 {
            heard.push(cursor.next().await.unwrap().frame);
        }
        drop(cursor);
        while broadcast.users(TrackId::Audio) > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let newest = broadcast.made(TrackId::Opus).newest_dts();
        send(50, 99);
        tokio::task::yield_now().await;
        cancel.cancel();
        (heard, newest)
    };
    let ((), (heard, newest)) = tokio::join!(running, hearing);
    assert!(
        heard
            .iter()
            .all(|f| f.duration == Some(Duration::from_millis(20)))
    );
    assert_eq!(heard[0].info.config.get(..8), Some(&b"OpusHead"[..]));
    let end = broadcast.made(TrackId::Opus).newest_dts().unwrap();
    assert!(
        end.micros_since(newest.unwrap()) < 400_000,
        "went on after its last listener"
    );
}
