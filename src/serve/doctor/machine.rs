//! Encoders, kernel, clock.

use lamplight_media::transcode::encoder::{AudioCodec, AudioEncoder, VideoEncoder, VideoSettings};

use super::Finding;
use crate::clock::Timestamp;
use crate::config::Convert;
use crate::serve::descriptors;

const BUFFER_BYTES_WANTED: u64 = 4 << 20;
const BUFFER_BYTES_LEAST: u64 = 1 << 20;
/// 2026-01-01: this program is younger.
const EARLIEST: Timestamp = Timestamp::from_micros(1_767_225_600_000_000);
/// 2100-01-01.
const LATEST: Timestamp = Timestamp::from_micros(4_102_444_800_000_000);

/// A small picture, as for the lowest rung.
const PICTURE: VideoSettings = VideoSettings {
    width: 426,
    height: 240,
    bitrate_bps: 300_000,
    frame_rate: 30,
    b_frames: 0,
    gop: 60,
};
const SOUND_BPS: u32 = 128_000;

/// Opens every encoder that is configured.
pub(super) fn encoders(convert: &Convert) -> Vec<Finding> {
    let opens = |name: &str| VideoEncoder::open([name], &PICTURE).is_ok();
    let (first, second) = (&convert.encoder, &convert.encoder_fallback);
    let does = (opens(first), opens(second));
    let install = "install FFmpeg with it, or name another";
    let first = match does {
        (true, _) => Finding::ok("convert.encoder", format!("{first} opens")),
        (false, true) => {
            let text = format!("{first} does not open, {second} takes its place; {install}");
            Finding::warn("convert.encoder", text)
        }
        (false, false) => {
            let text = format!("neither {first} nor {second} opens; {install}");
            Finding::fail("convert.encoder", text)
        }
    };
    let second = if does.1 {
        Finding::ok("convert.encoder_fallback", format!("{second} opens"))
    } else {
        let text = format!("{second} does not open; {install}");
        Finding::warn("convert.encoder_fallback", text)
    };
    let sound = |check, codec, name| match AudioEncoder::open(codec, SOUND_BPS) {
        Ok(_open) => Finding::ok(check, format!("{name} opens")),
        Err(err) => {
            let text = format!("{name} does not open ({err}); install FFmpeg with it");
            Finding::fail(check, text)
        }
    };
    let aac = sound("encoder of AAC", AudioCodec::Aac, "aac");
    let opus = sound("encoder of Opus", AudioCodec::Opus, "libopus");
    vec![first, second, aac, opus]
}

/// What the kernel lets a socket have for bursts of pictures.
pub(super) fn udp_buffers() -> [Finding; 2] {
    ["net.core.rmem_max", "net.core.wmem_max"].map(|key| {
        let path = format!("/proc/sys/{}", key.replace('.', "/"));
        let read = std::fs::read_to_string(path);
        udp_buffer(key, read.ok().and_then(|text| text.trim().parse().ok()))
    })
}

fn udp_buffer(key: &'static str, bytes: Option<u64>) -> Finding {
    let advice = format!("run: sysctl -w {key}={BUFFER_BYTES_WANTED}");
    match bytes {
        None => Finding::warn(key, format!("cannot be read here; on the host {advice}")),
        Some(bytes) if bytes < BUFFER_BYTES_LEAST => {
            let text = format!("{bytes} bytes, too few for many viewers over WebRTC; {advice}");
            // The server runs on it, and says the same at its start.
            Finding::warn(key, text)
        }
        Some(bytes) if bytes < BUFFER_BYTES_WANTED => {
            Finding::warn(key, format!("{bytes} bytes, more is better; {advice}"))
        }
        Some(bytes) => Finding::ok(key, format!("{bytes} bytes")),
    }
}

/// How many connections there can be.
pub(super) fn descriptors() -> Finding {
    let check = "file descriptors";
    match descriptors::most() {
        None => Finding::ok(check, "no limit"),
        Some(count) if count < descriptors::WANTED => {
            let text = format!("{count} are few; {}", descriptors::ADVICE);
            Finding::warn(check, text)
        }
        Some(count) => Finding::ok(check, format!("{count}")),
    }
}

/// Offers, tokens and certificates hang on the time of day.
pub(super) fn clock(now: Timestamp) -> Finding {
    let text = now.to_string();
    if (EARLIEST..LATEST).contains(&now) {
        Finding::ok("clock", text)
    } else {
        let text = format!("{text} cannot be; set it: timedatectl set-ntp true");
        Finding::fail("clock", text)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn small_buffers_are_told_with_the_line_that_mends_them() {
        let cases = [
            (Some(212_992), Verdict::Warn),
            (Some(BUFFER_BYTES_LEAST), Verdict::Warn),
            (None, Verdict::Warn),
            (Some(BUFFER_BYTES_WANTED), Verdict::Ok),
        ];
        for (bytes, verdict) in cases {
            let finding = udp_buffer("net.core.rmem_max", bytes);
            assert_eq!(finding.verdict, verdict);
            let says = finding.text.contains("sysctl -w net.core.rmem_max=4194304");
            assert_eq!(says, verdict != Verdict::Ok, "{}", finding.text);
        }
    }

    #[test]
    fn a_clock_that_was_never_set_is_no_clock() {
        assert_eq!(clock(Timestamp::from_micros(0)).verdict, Verdict::Fail);
        assert_eq!(clock(LATEST).verdict, Verdict::Fail);
        assert_eq!(clock(EARLIEST).verdict, Verdict::Ok);
    }

    #[test]
    fn an_encoder_that_is_not_there_is_named() {
        let convert = |encoder: &str, fallback: &str| Convert {
            encoder: encoder.into(),
            encoder_fallback: fallback.into(),
            gop: std::time::Duration::from_secs(2),
            linger: std::time::Duration::ZERO,
            clean_height_max: 1_080,
        };
        let verdicts = |findings: Vec<Finding>| -> Vec<Verdict> {
            findings.into_iter().take(2).map(|f| f.verdict).collect()
        };
        let none = encoders(&convert("lib_none", "lib_neither"));
        assert!(none[0].text.contains("lib_none"), "{}", none[0].text);
        assert_eq!(verdicts(none), [Verdict::Fail, Verdict::Warn]);
        let second = encoders(&convert("lib_none", "libx264"));
        assert_eq!(verdicts(second), [Verdict::Warn, Verdict::Ok]);
    }
}
