//! The least fMP4 that is right, written by hand.

/// A box around its content.
fn wrap(name: &[u8; 4], content: &[u8]) -> Vec<u8> {
    let size = u32::try_from(content.len() + 8).expect("small boxes");
    [&size.to_be_bytes()[..], name, content].concat()
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

/// An init section: H.264 at 90 kHz, or AAC at 48 kHz.
pub(super) fn init(is_sound: bool) -> Vec<u8> {
    let rate = if is_sound { 48_000 } else { 90_000 };
    let entry = if is_sound {
        let descriptors = [
            0, 0, 0, 0, 3, 22, 0, 1, 0, 4, 17, 0x40, 0x15, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 2,
            0x11, 0x90,
        ];
        wrap(
            b"mp4a",
            &[vec![0; 28], wrap(b"esds", &descriptors)].concat(),
        )
    } else {
        let avcc = wrap(b"avcC", &[1, 0x64, 0, 0x1f, 0xff, 0xe0, 0]);
        wrap(b"avc1", &[vec![0; 78], avcc].concat())
    };
    let stsd = wrap(b"stsd", &[words(&[0, 1]), entry].concat());
    let minf = wrap(b"minf", &wrap(b"stbl", &stsd));
    let mdhd = wrap(b"mdhd", &words(&[0, 0, 0, rate, 0, 0]));
    let mdia = wrap(b"mdia", &[mdhd, minf].concat());
    let tkhd = wrap(b"tkhd", &words(&[0, 0, 0, 1, 0, 0]));
    let trak = wrap(b"trak", &[tkhd, mdia].concat());
    let trex = wrap(b"trex", &words(&[0, 1, 1, 0, 0, 0]));
    let moov = wrap(b"moov", &[trak, wrap(b"mvex", &trex)].concat());
    [wrap(b"ftyp", b"iso6\0\0\0\0"), moov].concat()
}

/// One `moof` and `mdat` of equal samples.
pub(super) fn part(time: u64, samples: u32, lasts: u32, is_sync: bool) -> Vec<u8> {
    const SYNC: u32 = 0x0200_0000;
    const NON_SYNC: u32 = 0x0101_0000;
    const SAMPLE_BYTES: usize = 40;
    let first = if is_sync { SYNC } else { NON_SYNC };
    // Default duration and flags; the flags of the first sample in the run.
    let tfhd = wrap(b"tfhd", &words(&[0x0002_0028, 1, lasts, NON_SYNC]));
    let high = u32::try_from(time >> 32).expect("32 bits");
    let low = u32::try_from(time & 0xffff_ffff).expect("32 bits");
    let tfdt = wrap(b"tfdt", &words(&[0x0100_0000, high, low]));
    let trun = wrap(b"trun", &words(&[4, samples, first]));
    let traf = wrap(b"traf", &[tfhd, tfdt, trun].concat());
    let mfhd = wrap(b"mfhd", &words(&[0, 1]));
    let filler = time.to_be_bytes().repeat(SAMPLE_BYTES / 8);
    let mdat = wrap(b"mdat", &filler.repeat(samples as usize));
    [wrap(b"moof", &[mfhd, traf].concat()), mdat].concat()
}
