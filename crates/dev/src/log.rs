//! The logs of child processes, while they are written and after.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use anyhow::{Context, Result};

/// Reads a log that is still being written, line by line.
pub struct LogReader {
    file: File,
    unfinished: Vec<u8>,
}

impl LogReader {
    /// Starts at the beginning of the file.
    pub fn open(log: &Path) -> Result<Self> {
        let file = File::open(log).with_context(|| format!("cannot read {}", log.display()))?;
        Ok(Self { file, unfinished: Vec::new() })
    }

    /// Hands over the lines that were completed since the last call.
    pub fn read_lines(&mut self, on_line: &mut impl FnMut(&str)) -> Result<()> {
        self.file.read_to_end(&mut self.unfinished)?;
        while let Some(end) = self.unfinished.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.unfinished.drain(..=end).collect();
            on_line(String::from_utf8_lossy(&line).trim_end());
        }
        Ok(())
    }
}

/// The last `lines` lines of a log, for an error message. Reads at most 64 KiB.
pub fn tail(log: &Path, lines: usize) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(64 * 1024)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    match read() {
        Ok(text) => {
            let all: Vec<&str> = text.lines().collect();
            all[all.len().saturating_sub(lines)..].join("\n")
        }
        Err(error) => format!("({} cannot be read: {error})", log.display()),
    }
}
