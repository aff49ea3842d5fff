//! WHEP: offer in, answer out, session to run.
