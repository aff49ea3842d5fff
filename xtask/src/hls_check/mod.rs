//! `cargo xtask hls-check URL`: is this low-latency HLS, to the letter?
//!
//! Plays a live show as a strict client (RFC 8216bis, CMAF, HTTP) and names each broken rule with
//! its evidence. Any server can be checked; `--strict-lamplight` adds what ours promises.
//!
//! Not here: anything of `lamplight-media`. A reader that shared code with the writer would share
//! its faults.

mod fetch;
mod media;
mod mp4;
mod parse;
mod play;
mod playlists;
mod probes;
mod rules;
mod siblings;
#[cfg(test)]
mod tests;

use std::time::Duration;

use clap::Args;

use play::Settings;

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// The multivariant playlist, or one media playlist (http)
    #[arg(required_unless_present = "rules")]
    url: Option<String>,
    /// How long to play
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Judge by Lamplight's own promises too, not only by the RFC
    #[arg(long)]
    strict_lamplight: bool,
    /// Play only renditions whose URL has this in it
    #[arg(long)]
    only: Option<String>,
    /// Name every rule and leave
    #[arg(long)]
    rules: bool,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let Some(url) = options.url.as_ref().filter(|_| !options.rules) else {
        for rule in rules::ALL {
            eprintln!("{:<26} {:?}  {}", rule.id, rule.level, rule.says);
        }
        return Ok(());
    };
    let settings = Settings {
        lasts: Duration::from_secs(options.seconds),
        rounds_max: u64::MAX,
        is_strict: options.strict_lamplight,
        only: options.only.clone(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let report = runtime.block_on(play::check(url, &settings))?;
    eprintln!("{report}");
    let broken = report.ids();
    anyhow::ensure!(broken.is_empty(), "broken: {}", broken.join(", "));
    Ok(())
}
