//! Writes the seeds of every target as files for the fuzzer: `corpus/TARGET/seedN`.

use std::{fs, io};

fn main() -> io::Result<()> {
    for target in fuzz::TARGETS {
        let dir = format!("{}/corpus/{}", env!("CARGO_MANIFEST_DIR"), target.name);
        fs::create_dir_all(&dir)?;
        for (i, seed) in (target.seeds)().iter().enumerate() {
            fs::write(format!("{dir}/seed{i}"), seed)?;
        }
    }
    Ok(())
}
