//! What must hold for any bytes: one function per parser of network bytes.
//!
//! The targets of `media/fuzz` and the replay of their corpora in `media/tests/corpora.rs` call
//! these. Each asserts more than that nothing panics: an input read in pieces reads the same, what
//! was written reads back, what comes out is bounded by what went in.
//!
//! Not here: what well-formed input means; the tests beside each parser say that.

mod bitstream;
mod hub;
mod publish;
mod store;
mod viewers;
mod webrtc;

pub use self::bitstream::{aac_config, av1_obu, h264_nal, h264_sps, hevc_sps, opus_toc};
pub use self::hub::{broadcast_ops, cue_ops};
pub use self::publish::{amf, enhanced_flv, flv_tag, handshake, rtmp_chunk, rtmp_session};
pub use self::store::mp4_parts;
pub use self::viewers::{hls_directives, index_lines, sdp_offer, sdpfrag};
pub use self::webrtc::{
    dtls_record, jitter, nack, remb, rtcp_compound, rtp_payload, sctp_dcep, srtp_unprotect, stun,
    twcc,
};

/// A fuzz target: takes any bytes, panics when something that must hold does not.
pub type Target = fn(&[u8]);

/// Every target by its name, which is also the name of its corpus.
pub const TARGETS: [(&str, Target); 29] = [
    ("handshake", handshake),
    ("rtmp_chunk", rtmp_chunk),
    ("amf", amf),
    ("flv_tag", flv_tag),
    ("enhanced_flv", enhanced_flv),
    ("rtmp_session", rtmp_session),
    ("h264_nal", h264_nal),
    ("h264_sps", h264_sps),
    ("hevc_sps", hevc_sps),
    ("av1_obu", av1_obu),
    ("aac_config", aac_config),
    ("opus_toc", opus_toc),
    ("sdp_offer", sdp_offer),
    ("sdpfrag", sdpfrag),
    ("stun", stun),
    ("dtls_record", dtls_record),
    ("srtp_unprotect", srtp_unprotect),
    ("rtcp_compound", rtcp_compound),
    ("nack", nack),
    ("twcc", twcc),
    ("remb", remb),
    ("sctp_dcep", sctp_dcep),
    ("rtp_payload", rtp_payload),
    ("jitter", jitter),
    ("hls_directives", hls_directives),
    ("index_lines", index_lines),
    ("mp4_parts", mp4_parts),
    ("broadcast_ops", broadcast_ops),
    ("cue_ops", cue_ops),
];

/// The first byte as the size of pieces, and the rest.
fn piece(data: &[u8]) -> (usize, &[u8]) {
    match data.split_first() {
        Some((&size, rest)) => (usize::from(size).max(1), rest),
        None => (1, data),
    }
}
