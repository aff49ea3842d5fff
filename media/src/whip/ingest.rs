//! RTP packets of one publisher to tracks and samples. No clock, no IO.
//!
//! What comes is put together and then read as the FLV that an encoder would have sent over RTMP
//! ([`crate::flv`]): one place judges parameters, sizes and beginnings.
//!
//! Invariants
//! - A damaged picture, and one that refers to it, never leaves (I31).
//! - A keyframe is asked for at most once in [`ASK_EVERY`] (I32).

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::clock::RtpClock;
use super::depacketise::{Depacketiser, Unit};
use super::reorder::{Next, Reorder};
use crate::bitstream::{h264, hevc, opus};
use crate::flv::{Demuxer, FlvError, body};
use crate::frame::{Codec, Kind, Sample, TrackInfo};
use crate::time::SourceTime;

/// Keyframes are asked for at most this often.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// Browsers send keyframes only when asked: viewers and segments want one this often.
const KEYFRAME_EVERY: Duration = Duration::from_secs(2);
/// A publisher that leaves so many requests without a keyframe does not hear them.
const UNHEARD_MAX: u32 = 2;
/// How long a keyframe may take that was asked for.
const ANSWER_MAX: Duration = Duration::from_millis(1_500);
/// Sound of WebRTC is always announced with two channels (RFC 7587 7).
const CHANNELS: u8 = 2;

/// What of a packet is used.
#[derive(Clone, Debug)]
pub(super) struct Packet {
    pub(super) rtp_time: u32,
    pub(super) is_last: bool,
    pub(super) payload: Bytes,
}

/// What the hub is given.
#[derive(Debug)]
pub(super) enum Output {
    Track(TrackInfo),
    Sample(Sample),
}

/// Requests for keyframes, and what came of them.
#[derive(Debug)]
struct Keyframes {
    last: Instant,
    asked: Option<Instant>,
    /// Since the last keyframe.
    asks: u32,
}

/// One publisher's packets.
#[derive(Debug)]
pub(super) struct Ingest {
    clock: RtpClock,
    video: Reorder<Packet>,
    audio: Reorder<Packet>,
    /// How the picture is coded.
    codec: Codec,
    depacketiser: Depacketiser,
    demuxer: Demuxer,
    /// Parameter sets in force.
    sets: [Vec<Bytes>; 3],
    has_sound: bool,
    has_picture: bool,
    keyframes: Keyframes,
    /// Payloads that were none.
    pub(super) bad: u64,
    /// Times at which packets were given up.
    pub(super) lost: u64,
}

impl Ingest {
    /// For a publisher whose picture is of this codec.
    pub(super) fn new(now: Instant, codec: Codec) -> Self {
        Self {
            clock: RtpClock::new(now),
            video: Reorder::default(),
            audio: Reorder::default(),
            codec,
            depacketiser: Depacketiser::new(codec),
            demuxer: Demuxer::new(),
            sets: [Vec::new(), Vec::new(), Vec::new()],
            has_sound: false,
            has_picture: false,
            keyframes: Keyframes {
                last: now,
                asked: None,
                asks: 0,
            },
            bad: 0,
            lost: 0,
        }
    }

    /// A packet came.
    pub(super) fn push(&mut self, now: Instant, kind: Kind, number: u16, packet: Packet) {
        self.has_picture |= kind == Kind::Video;
        self.stream(kind).push(now, number, packet);
    }

    /// A sender report came.
    pub(super) fn report(&mut self, kind: Kind, ntp: u64, rtp_time: u32) {
        self.clock.report(kind, ntp, rtp_time);
    }

    /// The numbers to ask for again.
    pub(super) fn asks(&mut self, now: Instant, kind: Kind) -> Vec<u16> {
        self.stream(kind).asks(now)
    }

    fn stream(&mut self, kind: Kind) -> &mut Reorder<Packet> {
        match kind {
            Kind::Video => &mut self.video,
            Kind::Audio => &mut self.audio,
        }
    }

    /// Everything that is whole now.
    ///
    /// # Errors
    /// [`FlvError`], when the publisher cannot go on with what it sends.
    pub(super) fn drain(&mut self, now: Instant) -> Result<Vec<Output>, FlvError> {
        let mut out = Vec::new();
        while let Some(next) = self.video.pop(now) {
            match next {
                Next::Packet(packet) => self.picture(now, &packet, &mut out)?,
                Next::Lost => {
                    self.lost += 1;
                    self.depacketiser.lose();
                }
            }
        }
        while let Some(next) = self.audio.pop(now) {
            match next {
                Next::Packet(packet) => self.sound(now, &packet, &mut out)?,
                Next::Lost => self.lost += 1,
            }
        }
        Ok(out)
    }

    fn picture(
        &mut self,
        now: Instant,
        packet: &Packet,
        out: &mut Vec<Output>,
    ) -> Result<(), FlvError> {
        // Packets without content are sent to find out what a path carries.
        if packet.payload.is_empty() {
            return Ok(());
        }
        let pushed = self
            .depacketiser
            .push(packet.rtp_time, packet.is_last, &packet.payload);
        let Ok(units) = pushed else {
            self.bad += 1;
            return Ok(());
        };
        for unit in units {
            self.unit(now, unit, out)?;
        }
        Ok(())
    }

    fn unit(&mut self, now: Instant, unit: Unit, out: &mut Vec<Output>) -> Result<(), FlvError> {
        if unit.is_key {
            self.keyframes.last = now;
            self.keyframes.asks = 0;
        }
        let at = self.clock.stamp(now, Kind::Video, unit.rtp_time);
        if let Some(header) = self.header(&unit) {
            self.read(now, (Kind::Video, at), header, out)?;
        }
        let body = match self.codec {
            Codec::Hevc => body::hevc(unit.is_key, &unit.payload),
            Codec::Av1 => body::av1(unit.is_key, &unit.payload),
            _ => body::picture(unit.is_key, 0, &unit.payload),
        };
        self.read(now, (Kind::Video, at), body, out)
    }

    /// New parameters, if the unit brings any beside its pictures. AV1 has them among those.
    fn header(&mut self, unit: &Unit) -> Option<Bytes> {
        if unit.sets == self.sets {
            return None;
        }
        let [first, second, third] = unit.sets.clone();
        let header = match self.codec {
            Codec::H264 => {
                let config = h264::Config::new(first, second).ok()?;
                body::picture_header(&config.build())
            }
            Codec::Hevc => {
                let config = hevc::Config::new(first, second, third).ok()?;
                // Sets that cannot be read make a record that cannot either: it is judged as one.
                body::hevc_header(&config.build().unwrap_or_default())
            }
            Codec::Av1 | Codec::Aac | Codec::Opus => return None,
        };
        self.sets.clone_from(&unit.sets);
        Some(header)
    }

    fn sound(
        &mut self,
        now: Instant,
        packet: &Packet,
        out: &mut Vec<Output>,
    ) -> Result<(), FlvError> {
        if packet.payload.is_empty() {
            return Ok(());
        }
        let at = self.clock.stamp(now, Kind::Audio, packet.rtp_time);
        if !std::mem::replace(&mut self.has_sound, true) {
            let header = body::opus_header(&opus::head(CHANNELS));
            self.read(now, (Kind::Audio, at), header, out)?;
        }
        self.read(now, (Kind::Audio, at), body::opus(&packet.payload), out)
    }

    fn read(
        &mut self,
        now: Instant,
        (kind, at): (Kind, SourceTime),
        body: Bytes,
        out: &mut Vec<Output>,
    ) -> Result<(), FlvError> {
        // The demuxer's own stamps are milliseconds: a sample gets the exact one.
        let units = match self.demuxer.push(now, kind, 0, body) {
            Ok(units) => units,
            Err(error) if error.is_fatal() => return Err(error),
            Err(_dropped) => {
                self.bad += 1;
                return Ok(());
            }
        };
        out.extend(units.track.map(Output::Track));
        let sample = units.sample.map(|sample| Sample { dts: at, ..sample });
        out.extend(sample.map(Output::Sample));
        Ok(())
    }

    /// Whether to ask for a keyframe now.
    pub(super) fn asks_keyframe(&mut self, now: Instant) -> bool {
        let is_due = self.keyframe_due().is_some_and(|due| due <= now);
        if is_due {
            self.keyframes.asked = Some(now);
            self.keyframes.asks += 1;
        }
        is_due
    }

    /// After a loss at once, but not too often; else when the last one is old.
    fn keyframe_due(&self) -> Option<Instant> {
        let Keyframes { last, asked, .. } = self.keyframes;
        let is_needed = self.depacketiser.waits_for_key();
        let due = match asked {
            None if is_needed => last,
            Some(asked) if is_needed => asked + ASK_EVERY,
            _ => asked.map_or(last, |asked| asked.max(last)) + KEYFRAME_EVERY,
        };
        self.has_picture.then_some(due)
    }

    /// Whether the publisher leaves requests for keyframes without an answer.
    pub(super) fn is_deaf(&self, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.keyframes.last);
        self.keyframes.asks >= UNHEARD_MAX && since >= KEYFRAME_EVERY + ANSWER_MAX * UNHEARD_MAX
    }

    /// Thousandths of the packets since this was asked last that were given up.
    pub(super) fn loss_per_mille(&mut self) -> u64 {
        let streams = [self.video.take_counts(), self.audio.take_counts()];
        let given: u64 = streams.iter().map(|(given, _)| given).sum();
        let lost: u64 = streams.iter().map(|(_, lost)| lost).sum();
        (lost * 1_000).checked_div(given + lost).unwrap_or(0)
    }

    /// When something may be due without a new packet.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let streams = [self.video.deadline(), self.audio.deadline()];
        let all = streams.into_iter().chain([self.keyframe_due()]);
        all.flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Pictures;
    use super::*;

    const PICTURE: Duration = Duration::from_micros(33_333);

    /// Plays all, but for the packets that are lost for ever; gives what came of it.
    fn play(
        show: &Pictures,
        ingest: &mut Ingest,
        is_lost: impl Fn(usize, usize) -> bool,
    ) -> Played {
        let began = Instant::now();
        let mut played = Played::default();
        let mut number = 65_500_u16;
        for (n, (_, _, packets)) in show.all.iter().enumerate() {
            let step = u32::try_from(n).unwrap();
            let now = began + PICTURE * step;
            for (place, payload) in packets.iter().enumerate() {
                number = number.wrapping_add(1);
                let packet = Packet {
                    rtp_time: step * 3_000,
                    is_last: place + 1 == packets.len(),
                    payload: payload.clone(),
                };
                if !is_lost(n, place) {
                    ingest.push(now, Kind::Video, number, packet);
                }
            }
            played.asked += ingest.asks(now, Kind::Video).len();
            played.keyframes_asked += usize::from(ingest.asks_keyframe(now));
            played.take(ingest.drain(now).unwrap());
        }
        played
    }

    #[derive(Debug, Default)]
    struct Played {
        tracks: Vec<TrackInfo>,
        samples: Vec<Sample>,
        asked: usize,
        keyframes_asked: usize,
    }

    impl Played {
        fn take(&mut self, outputs: Vec<Output>) {
            for output in outputs {
                match output {
                    Output::Track(track) => self.tracks.push(track),
                    Output::Sample(sample) => self.samples.push(sample),
                }
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn pictures_come_out_as_they_went_in_and_their_parameters_before_them() {
        let show = Pictures::of(25);
        let played = play(
            &show,
            &mut Ingest::new(Instant::now(), Codec::H264),
            |_, _| false,
        );
        assert_eq!(played.tracks.len(), 1);
        assert_eq!(played.tracks[0].codec, Codec::H264);
        assert_eq!(played.tracks[0].picture_size(), Some((160, 96)));
        let sent = show.all.iter().map(|(_, payload, _)| payload);
        assert!(played.samples.iter().map(|s| &s.payload).eq(sent));
        let first = played.samples[0].dts.as_micros();
        for (n, sample) in (0_i64..).zip(&played.samples) {
            assert_eq!(sample.dts.as_micros() - first, n * 100_000 / 3);
        }
        assert_eq!(
            played.keyframes_asked, 1,
            "before the first picture was there"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_loss_that_stays_pictures_come_again_with_the_next_keyframe() {
        let show = Pictures::of(40);
        let mut ingest = Ingest::new(Instant::now(), Codec::H264);
        let played = play(&show, &mut ingest, |n, place| n == 14 && place == 0);
        let sent: Vec<&Bytes> = (show.all.iter().enumerate())
            .filter(|(n, _)| !(14..20).contains(n))
            .map(|(_, (_, payload, _))| payload)
            .collect();
        let got: Vec<&Bytes> = played.samples.iter().map(|s| &s.payload).collect();
        assert_eq!(got, sent);
        assert_eq!(ingest.lost, 1);
        assert!(played.asked >= 3, "{played:?}");
        assert_eq!(
            played.keyframes_asked, 1,
            "one came before the loss was certain"
        );
    }

    /// Three groups of pictures; the second loses a packet in its middle.
    #[tokio::test(start_paused = true)]
    async fn hevc_and_av1_come_out_as_they_went_in_and_nothing_that_is_damaged() {
        for codec in [Codec::Hevc, Codec::Av1] {
            let show = Pictures::of_codec(codec, 25);
            let mut ingest = Ingest::new(Instant::now(), codec);
            let mut played = play(&show, &mut ingest, |n, place| n == 14 && place == 1);
            let late = Instant::now() + Duration::from_secs(2);
            played.take(ingest.drain(late).unwrap());
            assert_eq!(played.tracks.len(), 1, "{codec:?}");
            assert_eq!(played.tracks[0].codec, codec);
            assert_eq!(played.tracks[0].picture_size(), Some((198, 108)));
            let sent: Vec<(bool, &Bytes)> = (show.all.iter().enumerate())
                .filter(|(n, _)| !(14..20).contains(n))
                .map(|(_, (is_key, payload, _))| (*is_key, payload))
                .collect();
            let samples = played.samples.iter();
            let got: Vec<(bool, &Bytes)> = samples.map(|s| (s.is_key, &s.payload)).collect();
            assert_eq!(got, sent, "{codec:?}");
            assert_eq!((ingest.lost, ingest.bad), (1, 0), "{codec:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_publisher_that_sends_no_keyframes_is_asked_in_vain_and_known_for_it() {
        let show = Pictures::of(9);
        let mut ingest = Ingest::new(Instant::now(), Codec::H264);
        play(&show, &mut ingest, |_, _| false);
        let mut at = Instant::now();
        let mut asks = Vec::new();
        for _ in 0..100 {
            at += Duration::from_millis(100);
            if ingest.asks_keyframe(at) {
                asks.push(at);
            }
        }
        assert!(
            asks.windows(2)
                .all(|pair| pair[1] - pair[0] >= KEYFRAME_EVERY)
        );
        assert!((4..=5).contains(&asks.len()), "{asks:?}");
        assert!(ingest.is_deaf(at));
    }

    #[tokio::test(start_paused = true)]
    async fn sound_is_a_track_of_its_own_from_its_first_packet() {
        let now = Instant::now();
        let mut ingest = Ingest::new(now, Codec::H264);
        let mut played = Played::default();
        for n in 0..5_u16 {
            let packet = Packet {
                rtp_time: u32::from(n) * 960,
                is_last: false,
                payload: Bytes::from_static(&[0xfc, 1, 2, 3]),
            };
            ingest.push(now, Kind::Audio, n, packet);
        }
        played.take(ingest.drain(now).unwrap());
        assert_eq!(played.tracks[0].codec, Codec::Opus);
        assert_eq!(played.samples.len(), 5);
        assert!(
            played
                .samples
                .iter()
                .all(|s| s.samples == 960 && s.payload.len() == 4)
        );
        assert!(!ingest.asks_keyframe(now), "there is no picture to ask for");
    }
}
