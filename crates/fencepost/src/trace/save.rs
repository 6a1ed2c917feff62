//! A trace as a file, whole or not at all.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
};

use super::{Trace, json, perfetto, picture::Picture, svg};

type Writer = fn(&Picture, &mut dyn Write) -> io::Result<()>;

/// What each suffix means.
const FORMATS: [(&str, &str, Writer); 3] = [
    ("pftrace", "Perfetto", perfetto::write),
    ("json", "Chrome", json::write),
    ("svg", "a picture", svg::write),
];

impl Trace {
    /// Writes what there is to a file, in the format that the suffix of `path` names:
    ///
    /// | suffix | is for |
    /// |---|---|
    /// | `.pftrace` | [Perfetto](https://ui.perfetto.dev); files of one boot join by `cat` |
    /// | `.json` | Chrome's format, for what reads that: Chrome's DevTools, speedscope |
    /// | `.svg` | a picture, for a page or a report |
    ///
    /// It takes in what is complete, as [`collect`](Trace::collect) does; spans that are not over
    /// are written as unfinished. The trace goes on and keeps what it has. It blocks while it
    /// writes, and any thread may call it, also while others record.
    ///
    /// The file is written beside its place, and renamed when it is whole: whoever reads `path` has
    /// the old file or the new one. `docs/tracing.md` in the repository says what each file holds,
    /// and what its readers do with it.
    ///
    /// # Errors
    /// - `InvalidInput` where the suffix names no format; the text lists those there are.
    /// - What the system says, where the file cannot be written. No part of it is left behind.
    /// - `Unsupported` in a forked child: the trace is the parent's.
    ///
    /// # References
    /// - <https://perfetto.dev/docs/reference/synthetic-track-event>
    ///
    /// ```
    /// use fencepost::{Device, trace::Trace};
    ///
    /// let (trace, stream) = (Trace::new(), Device::open("host")?.new_stream()?);
    /// trace.scope("work", &stream, || stream.launch(|| println!("work")))?;
    /// stream.synchronize()?;
    /// # let folder = std::env::temp_dir().join(format!("fencepost-save-{}", std::process::id()));
    /// # std::fs::create_dir_all(&folder)?;
    /// trace.save(folder.join("work.pftrace"))?;
    /// trace.save(folder.join("work.svg"))?;
    /// # std::fs::remove_dir_all(folder)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn save(&self, path: impl AsRef<Path>) -> io::Result<()> {
        let path = path.as_ref();
        // Before anything is collected.
        writer(path)?;
        if !self.is_ours() {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "this trace is of the process that this one was forked from; save it there",
            ));
        }
        save(&self.picture(), path)
    }
}

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

/// The error that [`save`] would return now, without saving anything.
pub(crate) fn can_save(path: &Path) -> io::Result<()> {
    writer(path)?;
    if path.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    let (file, beside) = create_beside(path)?;
    drop(file);
    fs::remove_file(&beside)
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
        // No longer than any other name, so that a file with the longest name can be saved.
        let beside = path.with_file_name(format!(".fencepost-{}-{number}", process::id()));
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
