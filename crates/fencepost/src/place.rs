//! Lines of source code: where a marker was recorded, or work launched.

use std::{
    collections::HashMap,
    fmt,
    panic::Location,
    sync::{LazyLock, PoisonError, RwLock},
};

/// A line of source code: of Rust, or of the language that called through a binding.
///
/// ```
/// let stream = fencepost::Device::open("host")?.new_stream()?;
/// let place = stream.record()?.recorded_at();
/// assert_eq!(place.line(), line!() - 1);
/// assert_eq!(place.to_string(), format!("{}:{}", place.file(), place.line()));
/// # Ok::<(), fencepost::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place(Kind);

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Rust(&'static Location<'static>),
    Other(&'static Line),
    Unknown,
}

/// A line of another language.
#[derive(PartialEq, Eq, Hash)]
struct Line {
    file: &'static str,
    line: u32,
}

/// How many lines of other languages are kept. Each is leaked, and a program that generates code
/// may have any number of them.
const MAX_LINES: usize = 1 << 16;

static LINES: LazyLock<RwLock<HashMap<(&'static str, u32), &'static Line>>> =
    LazyLock::new(RwLock::default);

impl Place {
    /// For a binding that was not told to look for its caller's line.
    pub(crate) const UNKNOWN: Place = Place(Kind::Unknown);

    /// The line that called the caller, in Rust.
    #[inline(always)]
    #[track_caller]
    pub(crate) fn caller() -> Place {
        Place(Kind::Rust(Location::caller()))
    }

    /// A line of another language. The first call for each line leaks it.
    pub(crate) fn of_line(file: &str, line: u32) -> Place {
        let known = LINES.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get(&(file, line)) {
            return Place(Kind::Other(known));
        }
        drop(known);
        let mut lines = LINES.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = lines.get(&(file, line)) {
            return Place(Kind::Other(known));
        }
        if lines.len() >= MAX_LINES {
            return Place::UNKNOWN;
        }
        // Lines of one file share its name.
        let known = lines.keys().find(|(known, _)| *known == file);
        let file = known.map_or_else(|| &*String::leak(file.into()), |(known, _)| known);
        let kept = &*Box::leak(Box::new(Line { file, line }));
        lines.insert((file, line), kept);
        Place(Kind::Other(kept))
    }

    /// Whether the line is known. It always is for calls from Rust.
    pub(crate) fn is_known(self) -> bool {
        self.0 != Kind::Unknown
    }

    /// The name of the source file, as the compiler or interpreter gives it.
    ///
    /// ```
    /// let place = fencepost::Device::open("host")?.default_stream().record()?.recorded_at();
    /// assert_eq!(place.file(), file!());
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn file(&self) -> &'static str {
        match self.0 {
            Kind::Rust(location) => location.file(),
            Kind::Other(line) => line.file,
            Kind::Unknown => "<unknown>",
        }
    }

    /// The number of the line, counted from 1.
    ///
    /// ```
    /// let place = fencepost::Device::open("host")?.default_stream().record()?.recorded_at();
    /// assert_eq!(place.line(), line!() - 1);
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn line(&self) -> u32 {
        match self.0 {
            Kind::Rust(location) => location.line(),
            Kind::Other(line) => line.line,
            Kind::Unknown => 0,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Kind::Unknown => f.write_str("an unknown line"),
            _ => write!(f, "{}:{}", self.file(), self.line()),
        }
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Place({self})")
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_another_language_is_kept_once() {
        let (one, two) = (
            Place::of_line("train.py", 7),
            Place::of_line(&String::from("train.py"), 7),
        );
        let (Kind::Other(first), Kind::Other(second)) = (one.0, two.0) else {
            panic!("{one} and {two}");
        };
        assert!(std::ptr::eq(first, second));
        let Kind::Other(third) = Place::of_line("train.py", 8).0 else {
            panic!("the limit is far away");
        };
        assert!(std::ptr::eq(first.file, third.file));
        assert_eq!(one.to_string(), "train.py:7");
    }
}
