//! What FFmpeg's codec contexts need and the safe wrapper lacks: the only unsafe code of the crate.
//!
//! Every function borrows a context that is not yet open exclusively, so nothing else reads the
//! fields it writes.
#![expect(
    unsafe_code,
    reason = "ffmpeg-next has no setter for extradata, thread_count and rc_buffer_size, and no \
              call for pictures on a graphics device"
)]

use std::ptr;
use std::sync::Once;

use ffmpeg_next::{Error, codec, ffi};

/// Pictures that can be on a device at once.
const SURFACES: i32 = 8;

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

/// How coarse an encoder of still pictures may be with this one.
pub(super) fn set_quality(picture: &mut ffmpeg_next::frame::Video, quality: i32) {
    // SAFETY: the frame is alive and borrowed mutably.
    unsafe { (*picture.as_mut_ptr()).quality = quality }
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

/// Memory of a graphics device for pictures of one size.
pub(super) struct Surfaces(*mut ffi::AVBufferRef);

// SAFETY: a counted reference, whose counts are atomic; it is used by one thread at a time.
unsafe impl Send for Surfaces {}

impl Surfaces {
    /// Opens the first device that VA-API finds.
    pub(super) fn vaapi(width: u32, height: u32) -> Result<Self, Error> {
        let size = |side: u32| i32::try_from(side).map_err(|_huge| Error::InvalidData);
        let (width, height) = (size(width)?, size(height)?);
        let mut device = ptr::null_mut();
        let kind = ffi::AVHWDeviceType::AV_HWDEVICE_TYPE_VAAPI;
        // SAFETY: `device` takes a new reference or stays null; no name and no options are given.
        let code = unsafe {
            ffi::av_hwdevice_ctx_create(&mut device, kind, ptr::null(), ptr::null_mut(), 0)
        };
        if code < 0 {
            return Err(Error::from(code));
        }
        // SAFETY: `device` is a reference of ours, released once the frames hold their own. What
        // is allocated is null or a frames context that nobody else knows before it is set up.
        unsafe {
            let frames = ffi::av_hwframe_ctx_alloc(device);
            ffi::av_buffer_unref(&mut device);
            if frames.is_null() {
                return Err(Error::Other { errno: ffi::ENOMEM });
            }
            let surfaces = Self(frames);
            let context = (*frames).data.cast::<ffi::AVHWFramesContext>();
            (*context).format = ffi::AVPixelFormat::AV_PIX_FMT_VAAPI;
            (*context).sw_format = ffi::AVPixelFormat::AV_PIX_FMT_NV12;
            (*context).width = width;
            (*context).height = height;
            (*context).initial_pool_size = SURFACES;
            match ffi::av_hwframe_ctx_init(frames) {
                code if code < 0 => Err(Error::from(code)),
                _ => Ok(surfaces),
            }
        }
    }

    /// Lets an encoder that is not yet open take pictures from here.
    pub(super) fn attach(&self, context: &mut codec::Context) -> Result<(), Error> {
        // SAFETY: the context is alive, borrowed mutably, not yet open, and had no frames; it
        // releases this reference when dropped.
        unsafe {
            let frames = ffi::av_buffer_ref(self.0);
            if frames.is_null() {
                return Err(Error::Other { errno: ffi::ENOMEM });
            }
            (*context.as_mut_ptr()).hw_frames_ctx = frames;
        }
        Ok(())
    }

    /// A copy of a picture there.
    pub(super) fn upload(
        &self,
        picture: &ffmpeg_next::frame::Video,
    ) -> Result<ffmpeg_next::frame::Video, Error> {
        let mut out = ffmpeg_next::frame::Video::empty();
        // SAFETY: both frames are alive; `out` is ours and empty, and takes a buffer of the pool,
        // of the size that the picture has.
        unsafe {
            let code = ffi::av_hwframe_get_buffer(self.0, out.as_mut_ptr(), 0);
            if code < 0 {
                return Err(Error::from(code));
            }
            let code = ffi::av_hwframe_transfer_data(out.as_mut_ptr(), picture.as_ptr(), 0);
            if code < 0 {
                return Err(Error::from(code));
            }
        }
        Ok(out)
    }
}

impl Drop for Surfaces {
    fn drop(&mut self) {
        // SAFETY: the reference is ours, and nobody uses it after this.
        unsafe { ffi::av_buffer_unref(&mut self.0) }
    }
}
