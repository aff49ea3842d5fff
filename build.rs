//! Says that the front end is missing, and builds again once it is there.

use std::path::Path;

fn main() {
    let is_release = std::env::var_os("PROFILE").is_some_and(|p| p == "release");
    if Path::new("web/dist/index.html").is_file() {
        println!("cargo:rerun-if-changed=web/dist");
        return;
    }
    println!(
        "cargo:warning=web/dist is missing: the binary will serve a page that names \
         `cargo xtask web`"
    );
    // A debug build reads web/dist when it runs; only a release build must look again.
    let watched = if is_release { "web/dist" } else { "build.rs" };
    println!("cargo:rerun-if-changed={watched}");
}
