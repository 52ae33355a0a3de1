//! The snapshot of advisories.

use std::fs;

use dev::advisories;
use dev::testing::Folder;

#[test]
fn a_lock_file_with_a_vulnerable_crate_is_told_without_a_network() {
    let folder = Folder::create("advisories").unwrap();
    let lock = folder.path().join("Cargo.lock");
    let package = "[[package]]\nname = \"lru\"\nversion = \"0.16.4\"\n\
                   source = \"registry+https://github.com/rust-lang/crates.io-index\"\n";
    fs::write(&lock, format!("version = 4\n\n{package}")).unwrap();
    let snapshot = advisories::snapshot().unwrap();
    let found = advisories::find(&snapshot, &lock, &[]).unwrap();
    assert!(matches!(&found[..], [one] if one.starts_with("lru 0.16.4: RUSTSEC-2026-0253 ")), "{found:?}");
    let ignored = advisories::ignored().unwrap();
    assert_eq!(advisories::find(&snapshot, &lock, &ignored).unwrap(), Vec::<String>::new());
}
