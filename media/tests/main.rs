//! Behaviours of the media core, one file each, in virtual time.

mod corpora;
mod cue_alignment;
mod enhanced_publisher;
mod gap;
mod late_joiner;
mod long_gop;
mod no_audio;
mod odd_rates;
mod param_change;
mod shutdown;
mod slow_viewer;
mod support;
mod takeover;
mod timestamps;
mod two_encoders;
