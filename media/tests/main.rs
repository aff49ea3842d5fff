//! Behaviours of the media core, one file each, in virtual time.

mod clip_file;
mod corpora;
mod cue_alignment;
mod day_on_air;
mod dvr;
mod enhanced_publisher;
mod flv_changes;
mod flv_formats;
mod flv_pace;
mod flv_viewer;
mod gap;
mod hls_rungs;
mod late_joiner;
mod long_gop;
mod no_audio;
mod odd_rates;
mod overload;
mod param_change;
mod replay;
mod shutdown;
mod slow_viewer;
mod support;
mod takeover;
mod timestamps;
mod two_encoders;
