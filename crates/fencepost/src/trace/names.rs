//! What the files have in common: names of rows and of spans.

use std::{borrow::Cow, collections::HashMap, ops::Range};

use super::{
    lanes::Lane,
    picture::{Attribute, Kind, Picture, State, Track},
};

/// What a reader shows for a lane.
pub(super) fn title(track: &Track, lane: Lane) -> String {
    let name = match &track.kind {
        Kind::Stream { device } => format!("{device} {}", track.name),
        Kind::Thread { .. } => track.name.clone(),
    };
    match lane.number {
        0 => name,
        number => format!("{name} ({})", number + 1),
    }
}

/// What stands behind the name of a span. Nothing else of its state is seen in a reader's picture.
pub(super) fn suffix(state: State) -> &'static str {
    match state {
        State::Complete => "",
        State::Failed(_) => " (failed)",
        State::Unfinished => " (unfinished)",
    }
}

/// What a reader shows for a slice or mark.
pub(super) fn of(picture: &Picture, name: u32, state: State) -> Cow<'_, str> {
    let name = picture.texts[name as usize].as_str();
    match suffix(state) {
        "" => name.into(),
        suffix => format!("{name}{suffix}").into(),
    }
}

/// What the files say of a slice or mark themselves.
pub(super) const START_TICKS: &str = "start_ticks";
pub(super) const END_TICKS: &str = "end_ticks";
pub(super) const TICKS: &str = "ticks";
pub(super) const UNCERTAINTY: &str = "uncertainty_ns";
pub(super) const FAILURE: &str = "failure";

const OWN: [&str; 5] = [START_TICKS, END_TICKS, TICKS, UNCERTAINTY, FAILURE];

/// Tells which names of attributes a reader takes for the same: of those it keeps the last value.
#[derive(Debug)]
pub(super) struct Keys {
    /// For each text, the first one that is the same to the reader, or one of [`OWN`], counted
    /// from the largest number down.
    first: Vec<u32>,
}

impl Keys {
    /// `read` is what the reader makes of a name.
    pub(super) fn new(picture: &Picture, read: impl Fn(&str) -> String) -> Self {
        let mut known: HashMap<String, u32> = HashMap::new();
        for (number, own) in (0..).zip(OWN) {
            known.insert(own.to_owned(), u32::MAX - number);
        }
        let mut first = vec![0; picture.texts.len()];
        for name in picture.attributes.iter().map(|attribute| attribute.name) {
            let text = &picture.texts[name as usize];
            first[name as usize] = *known.entry(read(text)).or_insert(name);
        }
        Self { first }
    }

    /// How often a name like that of `attributes[number]` stands before it.
    pub(super) fn before(&self, attributes: &[Attribute], number: usize) -> usize {
        let key = |attribute: &Attribute| self.first[attribute.name as usize];
        let own = key(&attributes[number]);
        let equal = attributes[..number]
            .iter()
            .filter(|other| key(other) == own)
            .count();
        equal + usize::from(own > u32::MAX - OWN.len() as u32)
    }
}

/// A name that another one like it stands before.
pub(super) fn again(name: &str, before: usize) -> String {
    format!("{name} ({})", before + 1)
}

/// The attributes of a slice or mark.
pub(super) fn attributes(picture: &Picture, range: Range<u32>) -> &[Attribute] {
    let range = range.start as usize..range.end as usize;
    picture.attributes.get(range).unwrap_or_default()
}
