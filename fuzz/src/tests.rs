//! Each target with its seeds, and with these cut short.

use std::fs;
use std::path::Path;

use super::TARGETS;

#[test]
fn every_target_comes_back_from_its_seeds() {
    for target in TARGETS {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target.name);
        let files = fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
        let mut seeds = 0;
        for file in files {
            let bytes = fs::read(file.unwrap().path()).unwrap();
            seeds += 1;
            (target.run)(&bytes);
            for eighth in 0..8 {
                (target.run)(&bytes[..bytes.len() * eighth / 8]);
            }
        }
        assert!(seeds > 0, "{}: no seeds", target.name);
    }
}
