//! Reads regular files of bounded size: the configuration, and the files that it names.
//!
//! Type and size are checked before the file is opened. The read itself is bounded, too: a file may
//! grow, and files in `/proc` have size zero.

use std::fmt;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::path::Path;

/// 10,000 peers in their long form are about 1 MiB, large bundles of issuers 256 KiB.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// Why a file was not read.
pub(super) enum ReadError {
    Io(io::Error),
    Directory,
    NotRegular,
    TooLarge,
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "the file cannot be read: {error}"),
            Self::Directory => f.write_str("this is a directory"),
            Self::NotRegular => f.write_str("this is not a regular file"),
            Self::TooLarge => write!(f, "the file is bigger than {} MiB", MAX_BYTES >> 20),
        }
    }
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The content of the file at `path`, and its metadata.
pub(super) fn read(path: &Path) -> Result<(Vec<u8>, Metadata), ReadError> {
    // Before the file is opened, since opening a FIFO blocks until it has a writer.
    check(&path.metadata()?)?;
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(ReadError::TooLarge);
    }
    Ok((bytes, metadata))
}

fn check(metadata: &Metadata) -> Result<(), ReadError> {
    if metadata.is_dir() {
        Err(ReadError::Directory)
    } else if !metadata.is_file() {
        Err(ReadError::NotRegular)
    } else if metadata.len() > MAX_BYTES {
        Err(ReadError::TooLarge)
    } else {
        Ok(())
    }
}
