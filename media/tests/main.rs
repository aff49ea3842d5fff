//! Behaviours of the media core, one file each, in virtual time.

mod corpora;
mod late_joiner;
mod support;
