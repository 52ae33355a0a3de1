//! Every target on its seeds and on random bytes, so that no target rots while nobody fuzzes.

use std::fs;

use dev::fuzz::SEEDS;
use dev::workspace;
use fuzz::{TARGETS, Target};
use proptest::prelude::*;

#[test]
fn each_target_has_seeds() {
    let named: Vec<&str> = SEEDS.iter().map(|(name, _)| *name).collect();
    assert_eq!(named, TARGETS.map(|target| target.name));
}

#[test]
fn each_target_holds_of_its_seeds() {
    let root = workspace::root().unwrap();
    for (name, folders) in SEEDS {
        let target = Target::named(name).unwrap();
        let mut seeds = 0;
        for folder in *folders {
            for entry in fs::read_dir(root.join(folder)).unwrap() {
                let path = entry.unwrap().path();
                println!("{name}: {}", path.display());
                (target.run)(&fs::read(path).unwrap());
                seeds += 1;
            }
        }
        assert_ne!(seeds, 0, "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn each_target_holds_of_any_bytes(bytes: Vec<u8>, text: String) {
        for target in TARGETS {
            (target.run)(&bytes);
            (target.run)(text.as_bytes());
        }
    }
}
