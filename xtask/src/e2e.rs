//! `cargo xtask e2e`: real ffmpeg, the real binary, a real browser (`tests/e2e`).

use clap::Args;

use crate::{command, web};

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Run only the tests whose name contains this
    filter: Option<String>,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    web::install("tests/e2e/browser")?;
    if !command::root().join("web/dist/index.html").is_file() {
        web::run(&web::Options::default())?;
    }
    command::run("cargo", &["build", "--bin", "lamplight"])?;
    let mut words = vec!["test", "--test", "e2e"];
    words.extend(options.filter.as_deref());
    // One at a time: each encodes, serves and decodes a show on the same few cores.
    words.extend(["--", "--test-threads=1", "--nocapture"]);
    command::run("cargo", &words)
}
