//! Encoders, kernel, clock.

use lamplight_media::transcode::choice;
use lamplight_media::transcode::encoder::{AudioCodec, AudioEncoder};

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

const SOUND_BPS: u32 = 128_000;

/// Encodes a picture with every encoder that is configured.
pub(super) fn encoders(convert: &Convert) -> Vec<Finding> {
    let install = "install FFmpeg with it, or name another";
    let works = |name: &str| choice::try_out(name);
    let used = choice::first_that_works(convert.encoders());
    let first = match (works(&convert.encoder), used) {
        (Ok(()), _) => {
            let text = format!("{} encodes a picture and is used", convert.encoder);
            Finding::ok("convert.encoder", text)
        }
        (Err(reason), Some(used)) => {
            let first = &convert.encoder;
            let text = format!("{first} does not work ({reason}), {used} is used; {install}");
            Finding::warn("convert.encoder", text)
        }
        (Err(reason), None) => {
            let first = &convert.encoder;
            let text = format!("{first} does not work ({reason}), nor another; {install}");
            Finding::fail("convert.encoder", text)
        }
    };
    let others = convert.encoder_fallback.iter();
    let others: Vec<_> = others.map(|name| (name, works(name))).collect();
    let text: Vec<String> = others
        .iter()
        .map(|(name, works)| match works {
            Ok(()) => format!("{name} encodes a picture"),
            Err(reason) => format!("{name} does not work ({reason})"),
        })
        .collect();
    let check = "convert.encoder_fallback";
    let second = match text.join(", ") {
        none if none.is_empty() => Finding::ok(check, "none is named"),
        text if others.iter().all(|(_, works)| works.is_ok()) => Finding::ok(check, text),
        text => Finding::warn(check, format!("{text}; {install}")),
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
            encoder_fallback: vec![fallback.into()],
            encoders_max: 0,
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
        let text = &second[0].text;
        assert!(
            text.contains("no encoder of that name), libx264 is used"),
            "{text}"
        );
        assert_eq!(verdicts(second), [Verdict::Warn, Verdict::Ok]);
        // The names that a file may hold are those that the media core knows.
        assert_eq!(crate::config::ENCODER_NAMES, choice::H264_ENCODERS);
    }
}
