//! The matrix: what each publisher sends, and what is expected of it.

use std::path::Path;

use super::clips::{Clip, mixed};
use crate::flv::{AUDIO, Tag, VIDEO};

const X265: &str = "-c:v libx265 -preset ultrafast -x265-params aud=1:keyint=60:min-keyint=60:\
                    scenecut=0:bframes=0:repeat-headers=1:log-level=error";
const AOM: &str = "-c:v libaom-av1 -usage realtime -cpu-used 8 -lag-in-frames 0 -g 60 \
                   -keyint_min 60 -b:v 300k";
const DATA: u8 = 18;

/// A message, when it is sent, and the stamp it has.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) at_ms: u64,
    pub(super) stamp: u32,
    pub(super) tag: Tag,
}

/// What is expected of a publisher.
#[derive(Clone, Copy, Debug)]
pub(super) enum Expected {
    Plays(Plays),
    /// A sentence with these words.
    Refused(&'static str),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Plays {
    pub(super) video: Option<&'static str>,
    pub(super) audio: Option<&'static str>,
    pub(super) discontinuities: usize,
    /// An interval without media is listed.
    pub(super) has_gap: bool,
    /// How long a picture and a frame of sound last.
    pub(super) frame_s: f64,
    pub(super) sound_s: f64,
}

const PLAYS: Plays = Plays {
    video: Some("avc1"),
    audio: Some("mp4a.40.2"),
    discontinuities: 0,
    has_gap: false,
    frame_s: 0.034,
    sound_s: 0.024,
};

#[derive(Clone, Copy, Debug)]
enum Codecs {
    /// As ffmpeg writes FLV.
    Flv,
    Hevc,
    Av1,
    Opus,
    HevcOpus,
}

#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) name: &'static str,
    clip: Clip,
    codecs: Codecs,
    /// What is odd about its messages.
    change: fn(Vec<Sent>) -> Vec<Sent>,
    /// The show goes on with another picture from the sixth second on.
    then: Option<Clip>,
    pub(super) expected: Expected,
}

impl Row {
    const fn of(name: &'static str, clip: Clip, plays: Plays) -> Self {
        Self {
            name,
            clip,
            codecs: Codecs::Flv,
            change: |show| show,
            then: None,
            expected: Expected::Plays(plays),
        }
    }

    fn picture(name: &'static str, video: &'static str, plays: Plays) -> Self {
        let clip = Clip {
            video,
            ..Clip::PLAIN
        };
        Self::of(name, clip, plays)
    }

    fn with(name: &'static str, change: fn(Vec<Sent>) -> Vec<Sent>, plays: Plays) -> Self {
        Self {
            change,
            ..Self::of(name, Clip::PLAIN, plays)
        }
    }

    fn coded(name: &'static str, codecs: Codecs, plays: Plays) -> Self {
        let video = match codecs {
            Codecs::Hevc | Codecs::HevcOpus => X265,
            Codecs::Av1 => AOM,
            Codecs::Flv | Codecs::Opus => Clip::PLAIN.video,
        };
        let clip = Clip {
            video,
            ..Clip::PLAIN
        };
        Self {
            codecs,
            ..Self::of(name, clip, plays)
        }
    }

    fn refused(name: &'static str, clip: Clip, words: &'static str) -> Self {
        Self {
            expected: Expected::Refused(words),
            ..Self::of(name, clip, PLAYS)
        }
    }

    /// The messages of its show.
    pub(super) async fn show(&self, folder: &Path) -> Vec<Sent> {
        let picture = Clip {
            sound: None,
            ..self.clip.clone()
        };
        let sound = Clip {
            size: None,
            ..self.clip.clone()
        };
        let opus = Clip {
            audio: "-c:a libopus -b:a 96k",
            ..sound.clone()
        };
        let mut tags = match self.codecs {
            Codecs::Flv => self.clip.tags(folder, "show").await,
            Codecs::Hevc => mixed(
                picture.hevc(folder).await,
                &sound.tags(folder, "sound").await,
            ),
            Codecs::Av1 => mixed(
                picture.av1(folder).await,
                &sound.tags(folder, "sound").await,
            ),
            Codecs::Opus => mixed(
                picture.tags(folder, "picture").await,
                &opus.opus(folder).await,
            ),
            Codecs::HevcOpus => mixed(picture.hevc(folder).await, &opus.opus(folder).await),
        };
        if let Some(then) = &self.then {
            let mut next = then.tags(folder, "next").await;
            next.retain(|tag| tag.kind == VIDEO);
            next.iter_mut().for_each(|tag| tag.stamp_ms += 6_000);
            tags.retain(|tag| tag.kind != VIDEO || tag.stamp_ms < 6_000);
            tags = mixed(tags, &next);
        }
        tags.retain(|tag| matches!(tag.kind, AUDIO | VIDEO));
        let sent = tags.into_iter().map(|tag| Sent {
            at_ms: tag.stamp_ms.unsigned_abs(),
            stamp: u32::try_from(tag.stamp_ms).unwrap(),
            tag,
        });
        (self.change)(sent.collect())
    }
}

fn is_header(sent: &Sent) -> bool {
    matches!(sent.tag.kind, AUDIO | VIDEO) && !sent.tag.is_media()
}

fn restamped(mut show: Vec<Sent>, stamp: impl Fn(u32) -> u32) -> Vec<Sent> {
    show.iter_mut()
        .for_each(|sent| sent.stamp = stamp(sent.stamp));
    show
}

/// What is repeated is sent again each second, before what has that stamp.
fn each_second(show: &[Sent], repeated: &[Sent]) -> Vec<Sent> {
    let (mut out, mut second) = (Vec::new(), 1);
    for sent in show {
        if sent.at_ms >= second * 1_000 {
            second += 1;
            out.extend(repeated.iter().cloned().map(|again| Sent {
                at_ms: sent.at_ms,
                stamp: sent.stamp,
                ..again
            }));
        }
        out.push(sent.clone());
    }
    out
}

fn headers_again(show: Vec<Sent>) -> Vec<Sent> {
    let headers: Vec<Sent> = show
        .iter()
        .take(8)
        .filter(|s| is_header(s))
        .cloned()
        .collect();
    each_second(&show, &headers)
}

fn metadata_again(show: Vec<Sent>) -> Vec<Sent> {
    let mut metadata = show[0].clone();
    metadata.tag.kind = DATA;
    each_second(&show, &[metadata])
}

/// A track begins so much later, its header too.
fn late(show: Vec<Sent>, kind: u8, ms: u64) -> Vec<Sent> {
    let mut out = Vec::new();
    for mut sent in show {
        if sent.tag.kind == kind && is_header(&sent) && sent.at_ms < ms {
            sent.at_ms = ms;
            sent.stamp = u32::try_from(ms).unwrap();
        } else if sent.tag.kind == kind && sent.at_ms < ms {
            continue;
        }
        out.push(sent);
    }
    out.sort_by_key(|sent| sent.at_ms);
    out
}

fn late_sound(show: Vec<Sent>) -> Vec<Sent> {
    late(show, AUDIO, 1_000)
}

fn too_late_sound(show: Vec<Sent>) -> Vec<Sent> {
    late(show, AUDIO, 3_000)
}

fn late_picture(show: Vec<Sent>) -> Vec<Sent> {
    late(show, VIDEO, 1_000)
}

fn silence(mut show: Vec<Sent>) -> Vec<Sent> {
    show.retain(|sent| !(5_000..9_000).contains(&sent.at_ms));
    show
}

fn mid_gop(mut show: Vec<Sent>) -> Vec<Sent> {
    show.retain(|sent| is_header(sent) || sent.at_ms >= 500);
    show
}

/// The stamps of the sound are off by up to 10 ms, never backwards.
fn jitter(mut show: Vec<Sent>) -> Vec<Sent> {
    let mut newest = 0;
    for (n, sent) in (0_u32..).zip(&mut show) {
        if sent.tag.kind == AUDIO && !is_header(sent) {
            let off = n * 7 % 21;
            sent.stamp = (sent.stamp + off).saturating_sub(10).max(newest + 1);
            newest = sent.stamp;
        }
    }
    show
}

/// Sound is sent 400 ms before the picture it belongs to.
fn sound_first(mut show: Vec<Sent>) -> Vec<Sent> {
    for sent in &mut show {
        if sent.tag.kind == VIDEO && !is_header(sent) {
            sent.at_ms += 400;
        }
    }
    show.sort_by_key(|sent| sent.at_ms);
    show
}

pub(super) fn all() -> Vec<Row> {
    let mut rows = pictures();
    rows.extend(codings());
    rows.extend(sizes_and_rates());
    rows.extend(sounds());
    rows.extend(codecs());
    rows.extend(messages());
    rows
}

/// Odd orders of pictures.
fn pictures() -> Vec<Row> {
    let remade = Plays {
        discontinuities: 1,
        ..PLAYS
    };
    vec![
        Row::of("plain", Clip::PLAIN, PLAYS),
        Row::picture(
            "b_frames",
            "-c:v libx264 -preset veryfast -bf 3 -g 60 -sc_threshold 0",
            PLAYS,
        ),
        Row::picture(
            "b_pyramid",
            "-c:v libx264 -preset veryfast -bf 5 -b-pyramid normal -b_strategy 0 -g 60 \
             -sc_threshold 0",
            PLAYS,
        ),
        Row::picture(
            "as_obs",
            "-c:v libx264 -preset veryfast -bf 2 -g 250 -sc_threshold 0",
            remade,
        ),
        Row::picture(
            "one_keyframe",
            "-c:v libx264 -preset ultrafast -tune zerolatency -g 9999 -sc_threshold 0",
            remade,
        ),
        Row::picture(
            "keyframes_anywhere",
            "-c:v libx264 -preset ultrafast -g 9999 -sc_threshold 0 -force_key_frames \
             0,0.7,1.5,3.9,4.2,6,8.5,10,11,13,15,17",
            PLAYS,
        ),
        Row::picture(
            "keyframes_only",
            "-c:v libx264 -preset ultrafast -tune zerolatency -g 1",
            PLAYS,
        ),
    ]
}

/// Odd ways to code a picture.
fn codings() -> Vec<Row> {
    let vfr = Clip {
        filter: "select='not(eq(mod(n,7),3))*not(eq(mod(n,11),5))'",
        video: "-c:v libx264 -preset ultrafast -tune zerolatency -sc_threshold 0 -g 50 \
                -fps_mode vfr",
        ..Clip::PLAIN
    };
    vec![
        Row::picture(
            "interlaced",
            "-c:v libx264 -preset ultrafast -flags +ildct+ilme -g 60 -sc_threshold 0 -bf 0",
            PLAYS,
        ),
        Row::picture(
            "slices",
            "-c:v libx264 -preset ultrafast -tune zerolatency -slices 4 -g 60 -sc_threshold 0",
            PLAYS,
        ),
        Row::picture(
            "ten_bits",
            "-c:v libx264 -preset ultrafast -tune zerolatency -g 60 -sc_threshold 0 \
             -pix_fmt yuv420p10le",
            PLAYS,
        ),
        Row::of(
            "variable_rate",
            vfr,
            Plays {
                frame_s: 0.1,
                ..PLAYS
            },
        ),
    ]
}

/// Odd sizes and rates of pictures.
fn sizes_and_rates() -> Vec<Row> {
    let sized = |name, size, rate, frame_s| {
        let clip = Clip {
            size: Some(size),
            rate,
            ..Clip::PLAIN
        };
        Row::of(name, clip, Plays { frame_s, ..PLAYS })
    };
    let slow = Clip {
        rate: "12",
        video: "-c:v libx264 -preset ultrafast -tune zerolatency -g 24 -sc_threshold 0",
        ..Clip::PLAIN
    };
    let full_colour = Clip {
        size: Some("321x181"),
        filter: "format=yuv444p",
        video: "-c:v libx264 -preset ultrafast -tune zerolatency -g 60 -sc_threshold 0 \
                -pix_fmt yuv444p",
        ..Clip::PLAIN
    };
    vec![
        Row::of("odd_sides", full_colour, PLAYS),
        sized("odd_blocks", "318x178", "30", 0.034),
        sized("portrait", "180x320", "30", 0.034),
        sized("ntsc", "320x180", "30000/1001", 0.034),
        sized("film", "320x180", "24000/1001", 0.042),
        sized("fast", "320x180", "60", 0.017),
        Row::of(
            "slow",
            slow,
            Plays {
                frame_s: 0.084,
                ..PLAYS
            },
        ),
        Row {
            expected: Expected::Plays(Plays {
                frame_s: 0.201,
                discontinuities: 1,
                ..PLAYS
            }),
            ..sized("too_slow", "320x180", "5", 0.201)
        },
    ]
}

/// Odd sounds.
fn sounds() -> Vec<Row> {
    let sound = |name, rate, channels| {
        let clip = Clip {
            sound: Some(rate),
            channels,
            ..Clip::PLAIN
        };
        let sound_s = 1_030.0 / f64::from(rate);
        Row::of(name, clip, Plays { sound_s, ..PLAYS })
    };
    let no_sound = Clip {
        sound: None,
        ..Clip::PLAIN
    };
    let no_picture = Clip {
        size: None,
        ..Clip::PLAIN
    };
    let other = |audio, rate, channels| Clip {
        audio,
        channels,
        sound: Some(rate),
        ..Clip::PLAIN
    };
    vec![
        sound("mono_44_1", 44_100, "1"),
        sound("mono_8", 8_000, "1"),
        sound("stereo_22_05", 22_050, "2"),
        sound("stereo_96", 96_000, "2"),
        sound("surround", 48_000, "6"),
        Row::of(
            "no_sound",
            no_sound,
            Plays {
                audio: None,
                ..PLAYS
            },
        ),
        Row::of(
            "no_picture",
            no_picture,
            Plays {
                video: None,
                ..PLAYS
            },
        ),
        Row::refused("mp3", other("-c:a libmp3lame", 44_100, "2"), "MP3"),
        Row::refused(
            "nellymoser",
            other("-c:a nellymoser", 44_100, "1"),
            "Nellymoser",
        ),
        Row::refused("adpcm", other("-c:a adpcm_swf", 44_100, "1"), "ADPCM"),
    ]
}

/// Other codecs than H.264 and AAC.
fn codecs() -> Vec<Row> {
    let video = |video| Plays {
        video: Some(video),
        ..PLAYS
    };
    let sorenson = Clip {
        video: "-c:v flv -g 60",
        ..Clip::PLAIN
    };
    let screen = Clip {
        video: "-c:v flashsv -g 60",
        filter: "format=bgr24",
        ..Clip::PLAIN
    };
    vec![
        Row::coded("opus", Codecs::Opus, PLAYS),
        Row::coded("hevc", Codecs::Hevc, video("hvc1")),
        Row::coded("av1", Codecs::Av1, video("av01")),
        Row::coded("hevc_opus", Codecs::HevcOpus, video("hvc1")),
        Row::refused("sorenson", sorenson, "Sorenson"),
        Row::refused("screen_video", screen, "Screen Video"),
    ]
}

/// Odd clocks and odd order.
fn messages() -> Vec<Row> {
    let broken = Plays {
        discontinuities: 1,
        ..PLAYS
    };
    let other_size = Clip {
        size: Some("480x270"),
        ..Clip::PLAIN
    };
    let often = Clip {
        video: "-c:v libx264 -preset ultrafast -tune zerolatency -g 30 -sc_threshold 0",
        ..Clip::PLAIN
    };
    vec![
        Row::with(
            "sign_wraps",
            |s| restamped(s, |ms| ms.wrapping_add((1 << 31) - 6_000)),
            PLAYS,
        ),
        Row::with(
            "clock_wraps",
            |s| restamped(s, |ms| ms.wrapping_sub(6_000)),
            PLAYS,
        ),
        Row::with(
            "begins_at_an_hour",
            |s| restamped(s, |ms| ms + 3_600_000),
            PLAYS,
        ),
        Row::with(
            "jumps_back",
            |s| restamped(s, |ms| if ms < 6_000 { ms } else { ms - 4_000 }),
            broken,
        ),
        Row::with(
            "jumps_ahead",
            |s| restamped(s, |ms| if ms < 6_000 { ms } else { ms + 3_600_000 }),
            broken,
        ),
        Row::with("headers_again", headers_again, PLAYS),
        Row::with("metadata_again", metadata_again, PLAYS),
        Row::with("late_sound", late_sound, PLAYS),
        Row::with(
            "too_late_sound",
            too_late_sound,
            Plays {
                audio: None,
                ..PLAYS
            },
        ),
        Row {
            clip: often,
            ..Row::with("late_picture", late_picture, PLAYS)
        },
        Row::with(
            "silence",
            silence,
            Plays {
                has_gap: true,
                ..broken
            },
        ),
        Row::with("begins_in_a_group", mid_gop, PLAYS),
        Row::with("jitter", jitter, PLAYS),
        Row::with("sound_first", sound_first, PLAYS),
        Row {
            then: Some(other_size),
            ..Row::of("another_size", Clip::PLAIN, broken)
        },
    ]
}
