//! A trace as a file, whole or not at all.

use std::{
    fs::{self, File, Metadata, OpenOptions},
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
    /// the old file or the new one. On Unix it has the mode of the file that it replaces, and the
    /// owner where the process may set that. Where `path` is a symbolic link, the file that it
    /// points to is replaced. A device or a pipe is written to. `docs/tracing.md` in the repository
    /// says what each file holds, and what its readers do with it.
    ///
    /// # Errors
    /// - `InvalidInput` where the suffix names no format; the text lists those there are.
    /// - What the system says, where the file cannot be written. No part of it is left behind. The
    ///   text has the path; the [`source`](std::error::Error::source) is the system's own
    ///   [`io::Error`], which has the [number](io::Error::raw_os_error).
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
pub(crate) fn save(picture: &Picture, path: &Path) -> io::Result<()> {
    let write = writer(path)?;
    replace(picture, path, write).map_err(|source| {
        let path = path.to_owned();
        io::Error::new(source.kind(), Unsaved { path, source })
    })
}

/// What the system said of a file. It is the source, since a text has no number to be read.
#[derive(Debug, thiserror::Error)]
#[error(
    "the trace is kept, but not saved as {}: {}; name another path",
    path.display(),
    without_number(source)
)]
struct Unsaved {
    path: PathBuf,
    source: io::Error,
}

fn without_number(error: &io::Error) -> String {
    let text = error.to_string();
    let number = error.raw_os_error().unwrap_or_default();
    match text.strip_suffix(&format!(" (os error {number})")) {
        Some(short) => short.to_owned(),
        None => text,
    }
}

fn replace(picture: &Picture, path: &Path, write: Writer) -> io::Result<()> {
    let (path, old) = followed(path)?;
    if old.as_ref().is_some_and(is_special) {
        let file = OpenOptions::new().write(true).open(&path)?;
        return write_all(picture, file, write);
    }
    let (file, beside) = create_beside(&path, old.as_ref())?;
    let written = write_all(picture, file, write).and_then(|()| fs::rename(&beside, &path));
    if written.is_err() {
        // What is left of it is of no use, and a second error would hide the first.
        let _ = fs::remove_file(&beside);
    }
    written
}

/// The error that [`save`] would return now, without saving anything.
pub(crate) fn can_save(path: &Path) -> io::Result<()> {
    writer(path)?;
    let (path, old) = followed(path)?;
    match old {
        Some(old) if old.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        // To open a pipe may block.
        Some(old) if is_special(&old) => Ok(()),
        old => {
            let (file, beside) = create_beside(&path, old.as_ref())?;
            drop(file);
            fs::remove_file(&beside)
        }
    }
}

/// What `path` points to, through every symbolic link, and what is known of the file there.
fn followed(path: &Path) -> io::Result<(PathBuf, Option<Metadata>)> {
    /// The system follows no more.
    const MOST_LINKS: usize = 40;
    let mut place = path.to_owned();
    for _ in 0..MOST_LINKS {
        let Ok(target) = fs::read_link(&place) else {
            break;
        };
        place.set_file_name(target);
    }
    match fs::metadata(&place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok((place, None)),
        // Where links go round, this is the system's error.
        found => found.map(|old| (place, Some(old))),
    }
}

/// A device, a pipe or a socket: a file in its place would be of no use to who reads it.
fn is_special(old: &Metadata) -> bool {
    !old.is_file() && !old.is_dir()
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

/// A new file in the folder of `path`, so that it can be renamed to that. No one may read it who
/// may not read the `old` one.
fn create_beside(path: &Path, old: Option<&Metadata>) -> io::Result<(File, PathBuf)> {
    static SAVED: AtomicU64 = AtomicU64::new(0);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    if old.is_some() {
        // Until it has the mode of the old one.
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    }
    loop {
        let number = SAVED.fetch_add(1, Ordering::Relaxed);
        // No longer than any other name, so that a file with the longest name can be saved.
        let beside = path.with_file_name(format!(".fencepost-{}-{number}", process::id()));
        match options.open(&beside) {
            // Left behind by a process that ended while it wrote, and had the same number.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            opened => {
                let file = opened?;
                if let Some(old) = old {
                    resemble(&file, old);
                }
                return Ok((file, beside));
            }
        }
    }
}

/// Gives `file` the owner and the mode of `old`, as far as the system allows. A file that stays as
/// it is can be read by its owner alone.
#[cfg(unix)]
fn resemble(file: &File, old: &Metadata) {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
    let mode = match fchown(file, None, Some(old.gid())) {
        Ok(()) => old.mode() & 0o777,
        // The group is another one, which has no right to it.
        Err(_) => old.mode() & 0o707,
    };
    // Only root gives files away.
    let _ = fchown(file, Some(old.uid()), None);
    let mode = fs::Permissions::from_mode(mode);
    let _ = file.set_permissions(mode);
}

/// Elsewhere a file has the rights of its folder.
#[cfg(not(unix))]
fn resemble(_: &File, _: &Metadata) {}
