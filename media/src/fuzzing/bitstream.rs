//! Parameters and units of codecs.

use bytes::{BufMut, Bytes, BytesMut};

use crate::bitstream::h264::{self, SpsFacts};
use crate::bitstream::{aac, av1, hevc, opus};

/// H.264: records and NAL units survive being written and read.
pub fn h264_nal(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    if let Ok(config) = h264::Config::parse(&bytes) {
        let _ = config.facts();
        let four = h264::Config {
            length_bytes: 4,
            ..config
        };
        assert_eq!(h264::Config::parse(&four.build()), Ok(four));
    }
    if let Ok(facts) = SpsFacts::parse(data) {
        assert!(facts.width > 0 && facts.height > 0);
    }
    for length_bytes in [1, 2, 4] {
        let units = h264::nals_of(data, length_bytes);
        let good: Vec<&[u8]> = units.map_while(Result::ok).collect();
        assert!(good.iter().all(|nal| !nal.is_empty()));
        let mut written = BytesMut::new();
        for nal in &good {
            h264::put_nal(&mut written, nal);
        }
        let again: Result<Vec<&[u8]>, _> = h264::nals(&written).collect();
        assert_eq!(again, Ok(good));
    }
    let units = h264::split_annex_b(&bytes);
    let mut joined = BytesMut::new();
    for unit in &units {
        joined.put_slice(&[0, 0, 0, 1]);
        joined.put_slice(unit);
    }
    assert_eq!(h264::split_annex_b(&joined.freeze()), units);
}

/// H.264 sequence parameter sets: what reads has a size, and makes a record that reads back.
pub fn h264_sps(data: &[u8]) {
    let Ok(facts) = SpsFacts::parse(data) else {
        return;
    };
    assert!(facts.width > 0 && facts.height > 0);
    assert!((8..=14).contains(&facts.depths.luma_bits) && facts.depths.chroma <= 3);
    let pps = vec![Bytes::from_static(&[0x68, 0xce, 0x3c, 0x80])];
    let set = Bytes::copy_from_slice(data);
    if let Ok(config) = h264::Config::new(vec![set], pps) {
        assert_eq!(config.facts(), Ok(facts));
        assert_eq!(h264::Config::parse(&config.build()), Ok(config));
    }
}

/// AAC: what reads has a rate and channels that a decoder takes.
pub fn aac_config(data: &[u8]) {
    if let Ok(config) = aac::Config::parse(data) {
        assert!(config.rate > 0 && config.channels <= 8, "{config:?}");
    }
}

/// HEVC: a set that reads gives a record that reads back; a record survives the same.
pub fn hevc_sps(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    if let Ok(facts) = hevc::SpsFacts::parse(data) {
        assert!(facts.width > 0 && facts.height > 0);
        assert!((8..=15).contains(&facts.luma_bits) && (1..=7).contains(&facts.sub_layers));
        let other = Bytes::from_static(&[0x40, 1, 0]);
        let (vps, pps) = (vec![other.clone()], vec![other]);
        if let Ok(config) = hevc::Config::new(vps, vec![bytes.clone()], pps) {
            let record = config.build().expect("the set was read before");
            assert_eq!(hevc::Config::parse(&record), Ok(config));
        }
    }
    if let Ok(config) = hevc::Config::parse(&bytes)
        && let Ok(record) = config.build()
    {
        let four = hevc::Config {
            length_bytes: 4,
            ..config
        };
        assert_eq!(hevc::Config::parse(&record), Ok(four));
    }
}

/// AV1: OBUs put together are the unit; records and sequence headers survive being written.
pub fn av1_obu(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    let whole: Vec<&[u8]> = av1::obus(data)
        .map_while(|obu| Some(obu.ok()?.whole))
        .collect();
    assert!(data.starts_with(&whole.concat()));
    assert!(whole.iter().all(|obu| !obu.is_empty()));
    let record = av1::Config::parse(&bytes).ok().flatten();
    let sequence = av1::Config::new(bytes).ok();
    for config in record.into_iter().chain(sequence) {
        assert!(config.facts.width > 0 && config.facts.height > 0);
        assert_eq!(av1::Config::parse(&config.build()), Ok(Some(config)));
    }
}

/// Opus: packets have a length a decoder can have; headers give what one of ours gives.
pub fn opus_toc(data: &[u8]) {
    if let Ok(samples) = opus::samples(data) {
        assert!(samples > 0 && samples <= 5_760 && samples.is_multiple_of(120));
    }
    if let Ok(channels) = opus::channels(data) {
        assert_eq!(opus::channels(&opus::head(channels)), Ok(channels));
    }
}
