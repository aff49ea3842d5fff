//! The demo's own publisher.
