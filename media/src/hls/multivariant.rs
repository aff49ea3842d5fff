//! The multivariant playlist (spec media.md 6.2; RFC 8216bis 4.4.6). Pure: facts in, text out.

use std::fmt::Write as _;

use super::dvr::List;
use super::rendition::RenditionId;

/// What it says of the broadcast; frozen for the life of an instance.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Multivariant {
    /// `src` first, then the rungs, the highest first; none for sound alone.
    pub(crate) variants: Vec<Variant>,
    pub(crate) audio: Option<AudioFacts>,
}

/// A picture that a player can choose.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Variant {
    pub(crate) id: RenditionId,
    pub(crate) codecs: String,
    pub(crate) size: (u32, u32),
    pub(crate) frame_rate: Option<f64>,
    /// Of the picture alone.
    pub(crate) rates: RateFacts,
}

/// What it says of the sound.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AudioFacts {
    pub(crate) codecs: String,
    pub(crate) rates: RateFacts,
}

/// Bits per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RateFacts {
    /// Of the largest segment.
    pub(crate) peak_bps: u64,
    pub(crate) mean_bps: u64,
}

impl Multivariant {
    /// Whether it lists a rung of so many lines.
    pub(crate) fn has_rung(&self, lines: u16) -> bool {
        self.variants
            .iter()
            .any(|v| v.id == RenditionId::Rung(lines))
    }

    /// Whether the source is H.264, which is passed on only while its keyframes are near.
    pub(crate) fn is_h264(&self) -> bool {
        self.variants
            .first()
            .is_some_and(|v| v.codecs.starts_with("avc1"))
    }

    /// The text; with a session its id stands in the URIs of the media playlists.
    pub(crate) fn render(&self, list: List, session: Option<&str>) -> String {
        let query = session.map(|s| format!("?s={s}")).unwrap_or_default();
        self.text(list.name(), &query)
    }

    /// What of it is recorded.
    pub(crate) fn recorded(&self) -> Self {
        let is_recorded = |variant: &&Variant| variant.id == RenditionId::Src;
        Self {
            variants: self.variants.iter().filter(is_recorded).cloned().collect(),
            audio: self.audio.clone(),
        }
    }

    /// The text, with media playlists of this name and query.
    pub(crate) fn text(&self, name: &str, query: &str) -> String {
        let mut out = String::from("#EXTM3U\n#EXT-X-VERSION:9\n");
        let list = format!("{name}{query}");
        self.write(&mut out, &list)
            .expect("a String takes every write");
        out
    }

    fn write(&self, out: &mut String, list: &str) -> std::fmt::Result {
        if self.variants.is_empty() {
            if let Some(audio) = &self.audio {
                write_rates(out, audio.rates, &audio.codecs)?;
                writeln!(out, "\n{}/{list}", RenditionId::Aac)?;
            }
            return Ok(());
        }
        if self.audio.is_some() {
            writeln!(
                out,
                "#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"aac\",NAME=\"Sound\",DEFAULT=YES,\
                 AUTOSELECT=YES,URI=\"{}/{list}\"",
                RenditionId::Aac
            )?;
        }
        for variant in &self.variants {
            self.write_variant(out, variant, list)?;
        }
        Ok(())
    }

    /// A variant is its picture and the sound beside it.
    fn write_variant(&self, out: &mut String, variant: &Variant, list: &str) -> std::fmt::Result {
        let sound = self.audio.as_ref();
        let beside = sound.map(|audio| audio.rates).unwrap_or_default();
        let rates = RateFacts {
            peak_bps: variant.rates.peak_bps + beside.peak_bps,
            mean_bps: variant.rates.mean_bps + beside.mean_bps,
        };
        let codecs = std::iter::once(variant.codecs.as_str());
        let codecs = codecs.chain(sound.map(|audio| audio.codecs.as_str()));
        write_rates(out, rates, &codecs.collect::<Vec<_>>().join(","))?;
        let (width, height) = variant.size;
        write!(out, ",RESOLUTION={width}x{height}")?;
        if let Some(rate) = variant.frame_rate {
            write!(out, ",FRAME-RATE={rate:.3}")?;
        }
        if sound.is_some() {
            write!(out, ",AUDIO=\"aac\"")?;
        }
        writeln!(out, "\n{}/{list}", variant.id)
    }
}

fn write_rates(out: &mut String, rates: RateFacts, codecs: &str) -> std::fmt::Result {
    let (peak, mean) = (rates.peak_bps.max(1), rates.mean_bps.max(1));
    write!(
        out,
        "#EXT-X-STREAM-INF:BANDWIDTH={peak},AVERAGE-BANDWIDTH={mean}"
    )?;
    write!(out, ",CODECS=\"{codecs}\"")
}
