//! A trace as a file, whole or not at all.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
};

use super::{json, perfetto, picture::Picture, svg};

type Writer = fn(&Picture, &mut dyn Write) -> io::Result<()>;

/// What each suffix means.
const FORMATS: [(&str, &str, Writer); 3] = [
    ("pftrace", "Perfetto", perfetto::write),
    ("json", "Chrome", json::write),
    ("svg", "a picture", svg::write),
];

/// Writes `picture` to `path`, in the format that its suffix names. What was there stays until the
/// new file is whole.
pub(super) fn save(picture: &Picture, path: &Path) -> io::Result<()> {
    let write = writer(path)?;
    let told = |error: io::Error| {
        io::Error::new(
            error.kind(),
            format!(
                "the trace is kept, but not saved as {}: {error}",
                path.display()
            ),
        )
    };
    let (file, beside) = create_beside(path).map_err(told)?;
    let written = write_all(picture, file, write).and_then(|()| fs::rename(&beside, path));
    written.map_err(|error| {
        // What is left of it is of no use, and a second error would hide the first.
        let _ = fs::remove_file(&beside);
        told(error)
    })
}

fn write_all(picture: &Picture, file: File, write: Writer) -> io::Result<()> {
    let mut out = io::BufWriter::with_capacity(1 << 16, file);
    write(picture, &mut out)?;
    out.flush()
}

fn writer(path: &Path) -> io::Result<Writer> {
    let suffix = path.extension().unwrap_or_default();
    let found = FORMATS
        .iter()
        .find(|(known, ..)| suffix.eq_ignore_ascii_case(known));
    found.map(|(_, _, write)| *write).ok_or_else(|| {
        let known: Vec<String> = FORMATS
            .iter()
            .map(|(suffix, reader, _)| format!(".{suffix} ({reader})"))
            .collect();
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "the suffix of {} names no format of a trace; there are {}",
                path.display(),
                known.join(", ")
            ),
        )
    })
}

/// A new file in the folder of `path`, so that it can be renamed to that.
fn create_beside(path: &Path) -> io::Result<(File, PathBuf)> {
    static SAVED: AtomicU64 = AtomicU64::new(0);
    loop {
        let number = SAVED.fetch_add(1, Ordering::Relaxed);
        let mut name = OsString::from(".");
        name.push(path.file_name().unwrap_or_default());
        name.push(format!(".{}-{number}", process::id()));
        let beside = path.with_file_name(name);
        match OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&beside)
        {
            // Left behind by a process that ended while it wrote, and had the same number.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            opened => return Ok((opened?, beside)),
        }
    }
}
