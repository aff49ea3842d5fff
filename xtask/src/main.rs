//! `cargo xtask`: the project's commands, one file each. CI and the scripts call the same ones.
//!
//! Not here: what only a shell can do before there is a compiler (`scripts/setup.sh`).

mod bench;
mod check;
mod command;
mod dev;
mod e2e;
mod fuzz;
mod hls_check;
mod loom;
mod openapi;
mod test;
mod tidy;
mod web;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "xtask", about = "The commands of this project")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Format, clippy, rustdoc, dependencies, house rules: everything that reads the code
    Check,
    /// Unit, HTTP and doc tests on SQLite, or the store and HTTP tests on PostgreSQL
    Test(test::Options),
    /// The house rules: arrows, sizes, names, headers, documented keys and routes
    Tidy,
    /// The server with a test pattern, the web pages with hot reload, and a browser
    Dev,
    /// Build the web pages, which the binary then embeds
    Web(web::Options),
    /// Write docs/openapi.json from the code
    Openapi,
    /// A real publisher and a real browser against the real binary
    E2e(e2e::Options),
    /// Fuzz the parsers of network bytes
    Fuzz(fuzz::Options),
    /// Whether a server's low-latency HLS keeps the rules of RFC 8216bis
    HlsCheck(hls_check::Options),
    /// The ring of the media core under every interleaving
    Loom,
    /// Measure what the design promises
    Bench(bench::Options),
}

fn main() -> ExitCode {
    match run(Arguments::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> anyhow::Result<()> {
    match task {
        Task::Check => check::run(),
        Task::Test(options) => test::run(&options),
        Task::Tidy => tidy::run(),
        Task::Dev => dev::run(),
        Task::Web(options) => web::run(&options),
        Task::Openapi => openapi::run(),
        Task::E2e(options) => e2e::run(&options),
        Task::Fuzz(options) => fuzz::run(&options),
        Task::HlsCheck(options) => hls_check::run(&options),
        Task::Loom => loom::run(),
        Task::Bench(options) => bench::run(&options),
    }
}
