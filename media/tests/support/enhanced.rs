//! Tags of publishers over enhanced RTMP.

use std::time::Duration;

use bytes::Bytes;
use lamplight_media::bitstream::{hevc, opus};
use lamplight_media::broadcast::Publisher;
use lamplight_media::flv::Demuxer;
use lamplight_media::frame::Kind;
use tokio::time::Instant;

fn hex(digits: &str) -> Bytes {
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).expect("hex digits");
    (0..digits.len()).step_by(2).map(byte).collect()
}

/// The header of x265's 64x64, a keyframe, and a frame after it.
pub(crate) fn hevc_bodies() -> [Bytes; 3] {
    let sets = [
        "40010c01ffff01600000030090000003000003001e928090",
        "42010101600000030090000003000003001ea0208105964a924caf016808000003000800000300f040",
        "4401c172b42240",
    ];
    let [vps, sps, pps] = sets.map(|set| vec![hex(set)]);
    let record = hevc::Config::new(vps, sps, pps).and_then(|config| config.build());
    let head = |bytes: &[u8], body: &[u8]| Bytes::from([bytes, body].concat());
    [
        head(b"\x90hvc1", &record.expect("sets of x265")),
        head(
            b"\x93hvc1",
            &hex("000000142801af0860f9eead5ffddfd7f7f452e672bfae60"),
        ),
        head(b"\xa3hvc1", &hex("0000000b0201d0097e10c610c0fb8c")),
    ]
}

/// The same of libaom.
pub(crate) fn av1_bodies() -> [Bytes; 3] {
    let sequence = "0a0a00000002afff9b5f2008";
    let key = "321a10009000082082200000c1b4e5c1a2503ec8d65dffa7985e2928";
    let head = |bytes: &[u8], digits: &str| Bytes::from([bytes, &hex(digits)].concat());
    [
        head(b"\x90av01", &["81000c00", sequence].concat()),
        head(b"\x91av01", &["1200", sequence, key].concat()),
        head(b"\xa1av01", "1200321230038080fdf806c000596596281042009530"),
    ]
}

pub(crate) struct Feed {
    pub(crate) demuxer: Demuxer,
    pub(crate) publisher: Publisher,
}

impl Feed {
    pub(crate) fn push(&mut self, kind: Kind, ms: u32, body: Bytes) {
        let now = Instant::now();
        let units = self.demuxer.push(now, kind, ms, body);
        let units = units.expect("a body of a real encoder");
        if let Some(track) = units.track {
            let set = self.publisher.set_track(now, track);
            set.expect("the codec stays the same");
        }
        if let Some(sample) = units.sample {
            self.publisher.write(now, sample);
        }
    }

    /// Five seconds of 25 pictures each, a keyframe every second, Opus beside them.
    pub(crate) async fn play(&mut self, [header, key, inter]: [Bytes; 3]) {
        let sound = |body: &[u8]| Bytes::from([b"\x91Opus", body].concat());
        self.push(Kind::Video, 0, header);
        let head = [b"\x90Opus", &opus::head(2)[..]].concat();
        self.push(Kind::Audio, 0, head.into());
        for n in 0..125 {
            let ms = n * 40;
            let picture = if n % 25 == 0 { &key } else { &inter };
            self.push(Kind::Video, ms, picture.clone());
            for half in [0, 20] {
                self.push(Kind::Audio, ms + half, sound(&[0xfc, 0xff, 0xfe]));
            }
            tokio::time::advance(Duration::from_millis(40)).await;
            tokio::task::yield_now().await;
        }
    }
}
