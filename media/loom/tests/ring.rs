//! The models, one a test.

use lamplight_media_loom::models;

#[test]
fn a_frame_that_is_written_wakes_who_waits_for_it() {
    models::a_frame_that_is_written_wakes_who_waits_for_it();
}

#[test]
fn a_reader_gets_every_frame_once_and_then_the_end() {
    models::a_reader_gets_every_frame_once_and_then_the_end();
}

#[test]
fn two_readers_get_the_same() {
    models::two_readers_get_the_same();
}

#[test]
fn a_reader_that_jumps_goes_forward_and_comes_to_the_end() {
    models::a_reader_that_jumps_goes_forward_and_comes_to_the_end();
}

#[test]
fn a_reader_that_comes_at_the_end_does_not_wait_for_ever() {
    models::a_reader_that_comes_at_the_end_does_not_wait_for_ever();
}
