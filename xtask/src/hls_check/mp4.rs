//! What a player reads of fragmented MP4 (ISO 14496-12): codec and clock of an init section, times
//! and sync flags of fragments. Sizes come from the network: nothing is trusted.

/// An init section of one track.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Init {
    pub(super) track: u32,
    /// Ticks per second.
    pub(super) rate: u32,
    /// As in CODECS; only the beginning for codecs of which the rest is not read.
    pub(super) codec: String,
    duration: u32,
    flags: u32,
}

/// One `moof` and its `mdat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fragment {
    /// Decode time of its first sample, in ticks.
    pub(super) time: u64,
    /// The sum of its sample durations, in ticks.
    pub(super) duration: u64,
    /// Of its last sample, in ticks.
    pub(super) last: u64,
    pub(super) is_sync: bool,
}

const NON_SYNC: u32 = 0x0001_0000;

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, String> {
    let four = bytes.get(at..at + 4).and_then(|b| b.try_into().ok());
    four.map(u32::from_be_bytes)
        .ok_or_else(|| "a box is cut short".to_owned())
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64, String> {
    let high = u64::from(u32_at(bytes, at)?);
    Ok((high << 32) | u64::from(u32_at(bytes, at + 4)?))
}

/// A name and its content.
type Box<'a> = ([u8; 4], &'a [u8]);

/// The boxes of a body; every byte belongs to one.
fn boxes(mut bytes: &[u8]) -> Result<Vec<Box<'_>>, String> {
    let mut out = Vec::new();
    while !bytes.is_empty() {
        let size = u32_at(bytes, 0)? as usize;
        let name = u32_at(bytes, 4)?.to_be_bytes();
        if size < 8 || size > bytes.len() {
            let name = String::from_utf8_lossy(&name).into_owned();
            return Err(format!(
                "box `{name}` says {size} bytes, {} are left",
                bytes.len()
            ));
        }
        let (this, rest) = bytes.split_at(size);
        out.push((name, &this[8..]));
        bytes = rest;
    }
    Ok(out)
}

fn one<'a>(bytes: &'a [u8], path: &[&[u8; 4]]) -> Result<&'a [u8], String> {
    let mut inside = bytes;
    for &name in path {
        let mut all = boxes(inside)?.into_iter().filter(|b| b.0 == *name);
        let text = String::from_utf8_lossy(name).into_owned();
        let first = all.next().ok_or_else(|| format!("no `{text}` box"))?;
        if all.next().is_some() {
            return Err(format!("more than one `{text}` box"));
        }
        inside = first.1;
    }
    Ok(inside)
}

/// Reads an init section.
pub(super) fn init(bytes: &[u8]) -> Result<Init, String> {
    one(bytes, &[b"ftyp"])?;
    let trak = one(bytes, &[b"moov", b"trak"])?;
    let tkhd = one(trak, &[b"tkhd"])?;
    let is_long = |body: &[u8]| body.first() == Some(&1);
    let track = u32_at(tkhd, if is_long(tkhd) { 20 } else { 12 })?;
    let mdhd = one(trak, &[b"mdia", b"mdhd"])?;
    let rate = u32_at(mdhd, if is_long(mdhd) { 20 } else { 12 })?;
    let stsd = one(trak, &[b"mdia", b"minf", b"stbl", b"stsd"])?;
    let trex = one(bytes, &[b"moov", b"mvex", b"trex"])?;
    if u32_at(trex, 4)? != track || rate == 0 {
        return Err("trex is of another track, or mdhd has no timescale".to_owned());
    }
    Ok(Init {
        track,
        rate,
        codec: codec(stsd.get(8..).unwrap_or_default())?,
        duration: u32_at(trex, 12)?,
        flags: u32_at(trex, 20)?,
    })
}

/// The codec of the only sample entry.
fn codec(entries: &[u8]) -> Result<String, String> {
    let all = boxes(entries)?;
    let [(name, body)] = all[..] else {
        return Err(format!("{} sample entries", all.len()));
    };
    let text = String::from_utf8_lossy(&name).into_owned();
    if &name == b"avc1" || &name == b"avc3" {
        let avcc = one(body.get(78..).unwrap_or_default(), &[b"avcC"])?;
        let profile = avcc.get(1..4).ok_or("avcC is cut short")?;
        let hex: String = profile.iter().map(|b| format!("{b:02x}")).collect();
        return Ok(format!("{text}.{hex}"));
    }
    if &name == b"mp4a" {
        let esds = one(body.get(28..).unwrap_or_default(), &[b"esds"])?;
        return Ok(format!("mp4a.40.{}", object_type(esds)?));
    }
    Ok(text)
}

/// The AAC object type: descriptors ES (3), `DecoderConfig` (4), `DecoderSpecificInfo` (5).
fn object_type(esds: &[u8]) -> Result<u8, String> {
    let mut at = 4;
    let mut tag = || -> Option<(u8, usize)> {
        let kind = *esds.get(at)?;
        at += 1;
        while esds.get(at)? & 0x80 != 0 {
            at += 1;
        }
        at += 1;
        let inside = at;
        at += match kind {
            3 => 3,
            4 => 13,
            _ => 0,
        };
        Some((kind, inside))
    };
    while let Some((kind, inside)) = tag() {
        if kind == 5 {
            let first = *esds.get(inside).ok_or("esds is cut short")?;
            return Ok(first >> 3);
        }
    }
    Err("esds has no decoder configuration".to_owned())
}

/// Reads the fragments of a part or segment.
pub(super) fn fragments(bytes: &[u8], init: &Init) -> Result<Vec<Fragment>, String> {
    let mut out = Vec::new();
    let mut waiting = None;
    for (name, body) in boxes(bytes)? {
        match &name {
            b"moof" => {
                if waiting.replace(fragment(body, init)?).is_some() {
                    return Err("a moof without its mdat".to_owned());
                }
            }
            b"mdat" => out.push(waiting.take().ok_or("an mdat without its moof")?),
            b"emsg" | b"styp" | b"sidx" | b"prft" | b"free" => {}
            other => {
                let name = String::from_utf8_lossy(other).into_owned();
                return Err(format!("a `{name}` box in a fragment"));
            }
        }
    }
    if waiting.is_some() || out.is_empty() {
        return Err("no mdat at the end".to_owned());
    }
    Ok(out)
}

fn fragment(moof: &[u8], init: &Init) -> Result<Fragment, String> {
    let traf = one(moof, &[b"traf"])?;
    let tfhd = one(traf, &[b"tfhd"])?;
    let flags = u32_at(tfhd, 0)? & 0x00ff_ffff;
    if u32_at(tfhd, 4)? != init.track {
        return Err("tfhd is of another track".to_owned());
    }
    let mut at = 8 + if flags & 1 != 0 { 8 } else { 0 } + if flags & 2 != 0 { 4 } else { 0 };
    let mut field = |bit: u32, otherwise: u32| -> Result<u32, String> {
        if flags & bit == 0 {
            return Ok(otherwise);
        }
        at += 4;
        u32_at(tfhd, at - 4)
    };
    let duration = field(8, init.duration)?;
    field(16, 0)?;
    let sample_flags = field(32, init.flags)?;
    let tfdt = one(traf, &[b"tfdt"])?;
    let time = match tfdt.first() {
        Some(1) => u64_at(tfdt, 4)?,
        _ => u64::from(u32_at(tfdt, 4)?),
    };
    let mut all = Fragment {
        time,
        duration: 0,
        last: 0,
        is_sync: false,
    };
    let mut is_first = true;
    for (_, trun) in boxes(traf)?.into_iter().filter(|b| &b.0 == b"trun") {
        run(trun, (duration, sample_flags), &mut is_first, &mut all)?;
    }
    if is_first {
        return Err("no sample in a moof".to_owned());
    }
    Ok(all)
}

/// Adds the samples of one `trun`.
fn run(
    trun: &[u8],
    (duration, sample_flags): (u32, u32),
    is_first: &mut bool,
    all: &mut Fragment,
) -> Result<(), String> {
    let flags = u32_at(trun, 0)? & 0x00ff_ffff;
    let count = u32_at(trun, 4)?;
    let mut at = 8 + if flags & 1 != 0 { 4 } else { 0 };
    let mut first_flags = None;
    if flags & 4 != 0 {
        first_flags = Some(u32_at(trun, at)?);
        at += 4;
    }
    for _ in 0..count {
        let mut field = |bit: u32, otherwise: u32| -> Result<u32, String> {
            if flags & bit == 0 {
                return Ok(otherwise);
            }
            at += 4;
            u32_at(trun, at - 4)
        };
        let lasts = u64::from(field(0x100, duration)?);
        field(0x200, 0)?;
        let said = field(0x400, first_flags.unwrap_or(sample_flags))?;
        field(0x800, 0)?;
        if std::mem::take(is_first) {
            all.is_sync = said & NON_SYNC == 0;
        }
        first_flags = None;
        all.duration += lasts;
        all.last = lasts;
        if flags & 0xf00 == 0 && count > 100_000 {
            return Err("a run of over 100 000 samples without fields".to_owned());
        }
    }
    Ok(())
}
