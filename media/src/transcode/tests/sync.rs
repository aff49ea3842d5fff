//! Picture and sound stay together, and sound has no hole.

use super::*;

/// Both at 1 s of their own clocks, which begin this much after T = 0.
const BASE_US: i64 = 2 * FRAME_US;
const EVENT_US: i64 = BASE_US + 1_000_000;

/// Black pictures with B-frames, white from the event on.
fn flash(pictures: i64) -> (TrackInfo, Vec<Encoded>) {
    let settings = VideoSettings {
        width: 160,
        height: 90,
        bitrate_bps: 500_000,
        frame_rate: 25,
        b_frames: 2,
        gop: 250,
    };
    let mut encoder = VideoEncoder::open(["libx264"], &settings).unwrap();
    let mut out = Vec::new();
    for n in 0..pictures {
        let t = n * FRAME_US + BASE_US;
        let mut picture = Video::new(Pixel::YUV420P, 160, 90);
        let level = if t < EVENT_US { 16 } else { 235 };
        for (plane, level) in [level, 128, 128].into_iter().enumerate() {
            picture.data_mut(plane).fill(level);
        }
        out.extend(encoder.encode(&mut picture, t, n == 0).unwrap());
    }
    out.extend(encoder.finish());
    (encoder.info().unwrap().clone(), out)
}

/// T of the first white picture.
fn first_white(frames: &[Arc<Frame>]) -> i64 {
    let mut decoder = VideoDecoder::open(&frames[0].info).unwrap();
    let mut pictures = frames.iter().flat_map(|frame| decoder.decode(frame));
    let white = pictures.find(|(_, picture)| picture.data(0)[0] > 125);
    white.expect("a flash").0
}

/// A show with a flash and a click at once, sent as RTMP sends it, comes out of both converters
/// with less than 10 ms between them (5.2 rule 5).
#[tokio::test]
async fn a_click_and_a_flash_stay_together_through_the_converters() {
    let (picture, units) = flash(75);
    let (sound, packets) = tone(48_000, 140);
    let mut publisher = open(picture);
    publisher.set_track(Instant::now(), sound).unwrap();
    let mut packets = packets.iter().peekable();
    for unit in &units {
        publish(&mut publisher, std::slice::from_ref(unit));
        while let Some((t, payload)) = packets.next_if(|(t, _)| t + BASE_US <= unit.dts) {
            let sample = Sample {
                kind: Kind::Audio,
                // Whole milliseconds.
                dts: SourceTime::from_micros((t + BASE_US) / 1_000 * 1_000),
                composition: Duration::ZERO,
                samples: 1_024,
                is_key: true,
                is_discardable: false,
                payload: payload.clone(),
            };
            publisher.write(Instant::now(), sample);
        }
    }
    let broadcast = Arc::clone(publisher.broadcast());
    let cancel = CancellationToken::new();
    let running = run(Arc::clone(&broadcast), Arc::default(), cancel.clone());
    let watching = async {
        let tracks = [TrackId::Clean, TrackId::Rung(240), TrackId::Opus];
        let mut made = tracks.map(|track| (broadcast.cursor(track, Start::OldestKey), Vec::new()));
        for (cursor, frames) in &mut made {
            let end = MediaTime::from_micros(EVENT_US + 500_000);
            while frames.last().is_none_or(|f: &Arc<Frame>| f.dts < end) {
                frames.push(cursor.next().await.unwrap().frame);
            }
        }
        cancel.cancel();
        made.map(|(_, frames)| frames)
    };
    let ((), [clean, rung, opus]) = tokio::join!(running, watching);
    assert_eq!(first_white(&clean), EVENT_US);
    assert_eq!(first_white(&rung), EVENT_US);
    let packets: Vec<_> = opus
        .iter()
        .map(|f| (f.dts.as_micros(), f.payload.clone()))
        .collect();
    let click = onset(&opus[0].info, &packets);
    let apart = click - EVENT_US;
    assert!(apart.abs() <= 10_000, "{apart} us between click and flash");
}

/// The loudest sample of each packet, heard by a decoder.
fn loudness(info: &TrackInfo, packets: &[(i64, Bytes)]) -> Vec<(i64, f32)> {
    let found = ffmpeg_next::decoder::find_by_name("aac").unwrap();
    let mut context = ffmpeg_next::codec::Context::new_with_codec(found);
    crate::transcode::ffi::set_extradata(&mut context, &info.config).unwrap();
    let mut decoder = context.decoder().audio().unwrap();
    let mut out = Vec::new();
    for (t, packet) in packets {
        decoder
            .send_packet(&ffmpeg_next::Packet::copy(packet))
            .unwrap();
        let mut heard = ffmpeg_next::frame::Audio::empty();
        while decoder.receive_frame(&mut heard).is_ok() {
            let levels = heard.plane::<f32>(0).iter().map(|level| level.abs());
            out.push((*t, levels.fold(0.0, f32::max)));
        }
    }
    out
}

/// A few packets lost are hidden; many are silence; T goes on in even steps either way.
#[test]
fn a_short_hole_in_the_sound_is_concealed_and_a_long_one_is_silent() {
    // Packets of 21.3 ms lost, and whether there is silence at the end of that.
    for (lost, is_silent) in [(1, false), (3, false), (4, false), (20, true), (90, true)] {
        let (info, packets) = tone(0, 240);
        let info = Arc::new(info);
        let hole = 100..100 + lost;
        let sent = packets.iter().enumerate();
        let sent = sent.filter(|(n, _)| !hole.contains(n));
        let frames: Vec<Frame> = sent
            .map(|(_, (t, p))| sound(&info, t + BASE_US, p))
            .collect();
        let (aac, made) = convert(AudioCodec::Aac, &frames);
        for pair in made.windows(2) {
            assert!((21_332..=21_334).contains(&(pair[1].0 - pair[0].0)));
        }
        let end = packets[99 + lost].0 + BASE_US;
        let loud = loudness(&aac, &made);
        let [before, within, after] = [packets[90].0 + BASE_US, end, end + 200_000].map(|t| {
            let at = loud.iter().find(|(at, _)| *at >= t).unwrap();
            at.1
        });
        assert!(
            before > 0.3 && after > 0.3,
            "{lost} lost: {before}, {after}"
        );
        // Where the next packet begins the decoder has both in one.
        let quietest = loud
            .iter()
            .filter(|(t, _)| (end - 22_000..=end).contains(t));
        let quietest = quietest.map(|(_, level)| *level).fold(1.0, f32::min);
        assert_eq!(
            quietest < 0.02,
            is_silent,
            "{lost} lost: {quietest} {within}"
        );
    }
}
