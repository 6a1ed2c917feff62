//! Lines of the watched program, kept as small numbers.

use fencepost::Place;

/// The line that made a call, where somebody looked for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line(pub(crate) Option<Place>);

impl Line {
    pub(crate) const UNKNOWN: Line = Line(None);

    /// In words behind others: `, recorded at train.py:7`.
    pub(crate) fn after(self, what: &str) -> String {
        match self.0 {
            Some(place) => format!(", {what} at {place}"),
            None => String::new(),
        }
    }
}

/// The line of the program that makes the call that is being followed.
#[inline]
pub(crate) fn line() -> Line {
    Line::UNKNOWN
}
