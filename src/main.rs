//! The `lamplight` binary.

use std::process::ExitCode;

use lamplight::serve::cli;

fn main() -> ExitCode {
    // Two TLS providers are compiled in; the first use of TLS panics unless one is chosen.
    if rustls::crypto::ring::default_provider()
        .install_default()
        .is_err()
    {
        return ExitCode::FAILURE;
    }
    cli::main()
}
