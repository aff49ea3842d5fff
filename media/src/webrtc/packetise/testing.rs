//! What the tests of all payload formats look at.

use crate::frame::RtpPayload;

/// The payloads as they go out.
pub(super) fn whole(payloads: &[RtpPayload]) -> Vec<Vec<u8>> {
    let whole = payloads.iter().map(|payload| {
        let bytes = [payload.head.as_bytes(), &payload.body].concat();
        assert_eq!(bytes.len(), payload.len());
        bytes
    });
    whole.collect()
}

/// Whether one send with segmentation offload carries them.
pub(super) fn are_equal_but_the_last(payloads: &[Vec<u8>]) -> bool {
    let Some((last, others)) = payloads.split_last() else {
        return true;
    };
    let size = others.first().map_or(last.len(), Vec::len);
    others.iter().all(|payload| payload.len() == size) && last.len() <= size
}
