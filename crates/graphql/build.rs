//! Makes cargo notice that the playground was built, or built anew, so that its files are embedded again.

use std::path::Path;

fn main() {
    let dist = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../playground/dist");
    // Cargo takes a path that is missing for one that has changed, and would compile this crate and all that use it
    // at each build. Where the folder cannot be made, that is all that is lost.
    let _ = std::fs::create_dir_all(&dist);
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={}", dist.display());
}
