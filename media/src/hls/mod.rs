//! LL-HLS.
