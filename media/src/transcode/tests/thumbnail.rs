//! Thumbnails, decoded again and looked at.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ffmpeg_next::codec::flag::Flags;
use ffmpeg_next::util::format::Pixel;
use ffmpeg_next::util::frame::Video;
use ffmpeg_next::{Dictionary, Packet, Rational, codec, decoder, encoder};
use tokio::time::advance;

use super::{FRAME_US, frame, open, publish, red_pictures, source_of};
use crate::frame::{Codec, Shape, TrackInfo};
use crate::transcode::encoder::Encoded;
use crate::transcode::ffi;
use crate::transcode::thumbnail::{LASTS, NoThumbnail, Thumbnails, fitted, small_jpeg, thumbnail};

/// Bounds of spec media.md 6.7.
const BYTES_MAX: usize = 100 << 10;

fn shown(jpeg: &Bytes) -> Video {
    assert!(jpeg.len() <= BYTES_MAX, "{} bytes", jpeg.len());
    let context = codec::Context::new_with_codec(decoder::find(codec::Id::MJPEG).unwrap());
    let mut decoder = context.decoder().video().unwrap();
    decoder.send_packet(&Packet::copy(jpeg)).unwrap();
    decoder.send_eof().unwrap();
    let mut picture = Video::empty();
    decoder.receive_frame(&mut picture).unwrap();
    picture
}

/// The mean of a plane.
fn mean(picture: &Video, plane: usize) -> usize {
    let (width, height) = (picture.plane_width(plane), picture.plane_height(plane));
    let (width, height) = (
        usize::try_from(width).unwrap(),
        usize::try_from(height).unwrap(),
    );
    let rows = picture
        .data(plane)
        .chunks(picture.stride(plane))
        .take(height);
    let sum: usize = rows
        .flat_map(|row| &row[..width])
        .map(|b| usize::from(*b))
        .sum();
    sum / (width * height)
}

/// A picture whose samples all have this part of what their bits hold.
fn flat(format: Pixel, (width, height): (u32, u32), bits: u32, planes: [u32; 3]) -> Video {
    let mut picture = Video::new(format, width, height);
    for (plane, eighth) in planes.into_iter().enumerate() {
        let value = eighth << (bits - 8);
        let bytes = u16::try_from(value).unwrap().to_le_bytes();
        let wide = if bits > 8 { 2 } else { 1 };
        for sample in picture.data_mut(plane).chunks_mut(wide) {
            sample.copy_from_slice(&bytes[..sample.len()]);
        }
    }
    picture
}

#[test]
fn a_keyframe_of_each_codec_is_the_picture_it_was() {
    for (info, [key, _]) in red_pictures() {
        let codec = info.codec;
        let unit = Encoded {
            pts: 0,
            dts: 0,
            is_key: true,
            payload: key,
        };
        let jpeg = thumbnail(&frame(&Arc::new(info), &unit)).unwrap();
        let picture = shown(&jpeg);
        assert_eq!((picture.width(), picture.height()), (64, 64), "{codec:?}");
        assert!(mean(&picture, 2) > 200, "{codec:?} is not red");
    }
    let (info, units) = source_of(1, 25);
    let info = Arc::new(info);
    let mut decoder = super::VideoDecoder::open(&info).unwrap();
    let first = frame(&info, &units[0]);
    let mut pictures = decoder.decode(&first);
    pictures.extend(decoder.finish());
    let picture = shown(&thumbnail(&first).unwrap());
    assert_eq!((picture.width(), picture.height()), (160, 90));
    // Full range in place of 16 to 235.
    let luma = (mean(&pictures[0].1, 0) - 16) * 255 / 219;
    assert!(
        mean(&picture, 0).abs_diff(luma) <= 3,
        "{}",
        mean(&picture, 0)
    );
}

/// Main and High 10 have samples of two bytes.
#[test]
fn a_keyframe_of_10_bits_is_a_jpeg_of_8() {
    let found = encoder::find_by_name("libx264").unwrap();
    let mut context = codec::Context::new_with_codec(found);
    ffi::set_single_thread(&mut context);
    context.set_flags(Flags::GLOBAL_HEADER);
    let mut video = context.encoder().video().unwrap();
    video.set_width(642);
    video.set_height(362);
    video.set_format(Pixel::YUV420P10LE);
    video.set_time_base(Rational(1, 25));
    let mut options = Dictionary::new();
    options.set("preset", "ultrafast");
    let mut encoder = video.open_with(options).unwrap();
    let mut picture = flat(Pixel::YUV420P10LE, (642, 362), 10, [81, 90, 240]);
    picture.set_pts(Some(0));
    encoder.send_frame(&picture).unwrap();
    encoder.send_eof().unwrap();
    let mut packet = Packet::empty();
    encoder.receive_packet(&mut packet).unwrap();
    let info = TrackInfo {
        codec: Codec::H264,
        generation: 0,
        shape: Shape::Video {
            width: 642,
            height: 362,
        },
        config: ffi::extradata(&encoder).into(),
        reorder_frames: None,
    };
    let unit = Encoded {
        pts: 0,
        dts: 0,
        is_key: true,
        payload: Bytes::copy_from_slice(packet.data().unwrap()),
    };
    let picture = shown(&thumbnail(&frame(&Arc::new(info), &unit)).unwrap());
    assert_eq!((picture.width(), picture.height()), (640, 361));
    assert!(mean(&picture, 2) > 230, "{} is not red", mean(&picture, 2));
}

#[test]
fn any_size_and_form_is_within_the_bounds_and_keeps_its_shape() {
    let sizes = [
        ((640, 360), (640, 360)),
        ((1_920, 1_080), (640, 360)),
        ((1_080, 1_920), (640, 1_138)),
        ((641, 361), (640, 360)),
        ((639, 359), (639, 359)),
        ((17, 9), (17, 9)),
        ((2, 2), (2, 2)),
        ((4_096, 16), (640, 3)),
        ((16, 4_096), (5, 1_280)),
        ((3_840, 8), (640, 1)),
    ];
    let forms = [
        (Pixel::YUV420P, 8),
        (Pixel::YUV422P10LE, 10),
        (Pixel::YUV444P12LE, 12),
    ];
    for (from, to) in sizes {
        assert_eq!(fitted(from.0, from.1), to, "{from:?}");
        for (format, bits) in forms {
            let picture = flat(format, from, bits, [126, 128, 128]);
            let picture = shown(&small_jpeg(&picture).unwrap());
            assert_eq!((picture.width(), picture.height()), to, "{format:?}");
            let grey = mean(&picture, 0);
            assert!(
                (124..=132).contains(&grey),
                "{format:?} of {from:?}: {grey}"
            );
        }
    }
}

/// Noise is the worst there is.
#[test]
fn a_picture_that_no_quality_makes_small_enough_is_made_smaller() {
    let mut picture = Video::new(Pixel::YUV420P, 640, 1_280);
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    for plane in 0..3 {
        for byte in picture.data_mut(plane) {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            *byte = if random & 1 == 0 { 16 } else { 235 };
        }
    }
    let picture = shown(&small_jpeg(&picture).unwrap());
    let size = (picture.width(), picture.height());
    assert!(size == (640, 1_280) || size == (320, 640), "{size:?}");
}

#[tokio::test(start_paused = true)]
async fn of_a_show_one_picture_is_decoded_in_ten_seconds_however_many_ask() {
    let (info, units) = source_of(2, 25);
    let mut publisher = open(info);
    let thumbnails = Thumbnails::default();
    let broadcast = Arc::clone(publisher.broadcast());
    let none = thumbnails.of(&broadcast).await;
    assert_eq!(
        none,
        Err(NoThumbnail::NoPicture),
        "no keyframe is there yet"
    );
    advance(LASTS).await;
    publish(&mut publisher, &units[..25]);
    let (first, same) = tokio::join!(thumbnails.of(&broadcast), thumbnails.of(&broadcast));
    let first = first.unwrap();
    assert_eq!(first.as_ptr(), same.unwrap().as_ptr(), "decoded once");
    publish(&mut publisher, &units[25..]);
    assert!(units[25].is_key && units[25].pts > FRAME_US);
    advance(LASTS - Duration::from_millis(1)).await;
    let still = thumbnails.of(&broadcast).await.unwrap();
    assert_eq!(first.as_ptr(), still.as_ptr(), "not yet");
    advance(Duration::from_millis(1)).await;
    let second = thumbnails.of(&broadcast).await.unwrap();
    assert_ne!(first, second, "the newer keyframe");
    advance(LASTS).await;
    let third = thumbnails.of(&broadcast).await.unwrap();
    assert_eq!(
        second.as_ptr(),
        third.as_ptr(),
        "no newer keyframe, nothing to decode"
    );
}
