//! What FFmpeg's codec contexts need and the safe wrapper lacks: the only unsafe code of the crate.
//!
//! Every function borrows a context that is not yet open exclusively, so nothing else reads the
//! fields it writes.
#![expect(
    unsafe_code,
    reason = "ffmpeg-next has no setter for extradata, thread_count and rc_buffer_size"
)]

use std::ptr;
use std::sync::Once;

use ffmpeg_next::{Error, codec, ffi};

static INIT: Once = Once::new();

/// Prepares the library once in the process. Its own log is kept to what is fatal: it writes to
/// standard error, and a publisher could fill that with damaged frames.
pub(super) fn init() {
    INIT.call_once(|| {
        // Registers nothing in this version, and cannot fail.
        let _ = ffmpeg_next::init();
        ffmpeg_next::log::set_level(ffmpeg_next::log::Level::Fatal);
    });
}

/// Gives a decoder the parameters that are not in its packets.
pub(super) fn set_extradata(context: &mut codec::Context, bytes: &[u8]) -> Result<(), Error> {
    let size = i32::try_from(bytes.len()).map_err(|_huge| Error::InvalidData)?;
    let padding =
        usize::try_from(ffi::AV_INPUT_BUFFER_PADDING_SIZE).map_err(|_never| Error::InvalidData)?;
    // SAFETY: av_mallocz takes any size and returns null or zeroed memory of it.
    let memory = unsafe { ffi::av_mallocz(bytes.len() + padding) }.cast::<u8>();
    if memory.is_null() {
        return Err(Error::Other { errno: ffi::ENOMEM });
    }
    // SAFETY: the memory holds `bytes` and the padding and is not shared. The context is alive
    // and borrowed mutably; it had no extradata, and frees this with av_free when dropped.
    unsafe {
        ptr::copy_nonoverlapping(bytes.as_ptr(), memory, bytes.len());
        let context = context.as_mut_ptr();
        ffi::av_freep(ptr::addr_of_mut!((*context).extradata).cast());
        (*context).extradata = memory;
        (*context).extradata_size = size;
    }
    Ok(())
}

/// One thread: the threads of a conversion are counted by the worker, not by the codec.
pub(super) fn set_single_thread(context: &mut codec::Context) {
    // SAFETY: the context is alive and borrowed mutably, and not yet open.
    unsafe { (*context.as_mut_ptr()).thread_count = 1 }
}

/// Tells a decoder the unit of the packets' times, without which it cannot keep their order.
pub(super) fn set_packet_micros(context: &mut codec::Context) {
    // SAFETY: the context is alive and borrowed mutably, and not yet open.
    unsafe {
        (*context.as_mut_ptr()).pkt_timebase = ffi::AVRational {
            num: 1,
            den: 1_000_000,
        }
    }
}

/// Size of the rate control's buffer, in bits.
pub(super) fn set_buffer_bits(context: &mut codec::Context, bits: i32) {
    // SAFETY: the context is alive and borrowed mutably, and not yet open.
    unsafe { (*context.as_mut_ptr()).rc_buffer_size = bits }
}

/// A copy of the parameters an open encoder put beside its packets.
pub(super) fn extradata(context: &codec::Context) -> Vec<u8> {
    // SAFETY: the context is alive and not changed while borrowed; FFmpeg keeps pointer and size
    // in step.
    unsafe {
        let context = context.as_ptr();
        let size = usize::try_from((*context).extradata_size).unwrap_or(0);
        if size == 0 || (*context).extradata.is_null() {
            return Vec::new();
        }
        std::slice::from_raw_parts((*context).extradata, size).to_vec()
    }
}

/// Samples an encoder put before the first that it was given.
pub(super) fn initial_padding(context: &codec::Context) -> u32 {
    // SAFETY: the context is alive and not changed while borrowed.
    let padding = unsafe { (*context.as_ptr()).initial_padding };
    u32::try_from(padding).unwrap_or(0)
}

/// Whether a decoded picture came from a keyframe.
pub(super) fn is_key(picture: &ffmpeg_next::frame::Video) -> bool {
    // SAFETY: the frame is alive and not changed while borrowed.
    unsafe { (*picture.as_ptr()).key_frame == 1 }
}

/// Another handle on a decoded picture: the samples are shared and must not be written, the times
/// and the type are its own. `None` when memory is short.
pub(super) fn share(picture: &ffmpeg_next::frame::Video) -> Option<ffmpeg_next::frame::Video> {
    // SAFETY: the frame is alive and not changed while borrowed. av_frame_clone returns null or a
    // new frame that holds counted references to the same buffers, which `wrap` takes over; the
    // counts are atomic, and encoders and scalers only read what they are given.
    unsafe {
        let shared = ffi::av_frame_clone(picture.as_ptr());
        (!shared.is_null()).then(|| ffmpeg_next::frame::Video::wrap(shared))
    }
}
