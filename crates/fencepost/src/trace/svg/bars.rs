//! What is drawn in each row: bars, few enough for a picture.

use crate::trace::{
    lanes::{Lane, Step},
    picture::{Picture, State},
};

use super::scale::Scale;

/// Narrower bars become one with their neighbours.
const NARROW: f64 = 2.0;

/// One slice, or several that are too narrow to be told apart.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Bar {
    pub(super) left: f64,
    pub(super) right: f64,
    pub(super) what: What,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum What {
    Slice(u32),
    Several(Several),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Several {
    pub(super) slices: u64,
    pub(super) failed: u64,
    /// The name of all of them.
    pub(super) name: Option<u32>,
}

/// The slices at one depth of a lane.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) lane: Lane,
    pub(super) depth: usize,
    pub(super) bars: Vec<Bar>,
    /// Where marks are, and the last one at each place.
    pub(super) marks: Vec<(f64, u32)>,
}

/// The rows of a picture, by track, then lane, then depth.
#[derive(Debug, Default)]
pub(super) struct Rows {
    pub(super) rows: Vec<Row>,
    /// Where the rows of the current track begin.
    first: usize,
}

impl Rows {
    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn step(&mut self, picture: &Picture, scale: &Scale, lane: Lane, step: Step) {
        match step {
            Step::Begin(number, depth) => {
                let slice = &picture.slices[number as usize];
                let new = Bar {
                    left: scale.x(slice.start),
                    right: scale.x(slice.end.max(slice.start)),
                    what: What::Slice(number),
                };
                self.row(lane, depth).put(picture, new);
            }
            Step::Mark(number, _) => {
                let x = scale.x(picture.marks[number as usize].time);
                let marks = &mut self.row(lane, 0).marks;
                match marks.last_mut() {
                    Some(last) if x - last.0 < NARROW => last.1 = number,
                    _ => marks.push((x, number)),
                }
            }
            Step::End(_) => {}
        }
    }

    /// The row, made where there is none. Steps come track by track.
    fn row(&mut self, lane: Lane, depth: usize) -> &mut Row {
        if self
            .rows
            .last()
            .is_some_and(|row| row.lane.track != lane.track)
        {
            self.first = self.rows.len();
        }
        let found = self.rows[self.first..]
            .binary_search_by_key(&(lane.number, depth), |row| (row.lane.number, row.depth));
        let at = self.first + found.unwrap_or_else(|at| at);
        if found.is_err() {
            let row = Row {
                lane,
                depth,
                bars: Vec::new(),
                marks: Vec::new(),
            };
            self.rows.insert(at, row);
        }
        &mut self.rows[at]
    }
}

impl Row {
    fn put(&mut self, picture: &Picture, new: Bar) {
        let narrow = |bar: &Bar| bar.right - bar.left < NARROW;
        let joins = |last: &&mut Bar| {
            let several = matches!(last.what, What::Several(_));
            narrow(&new) && (several || narrow(last)) && new.left - last.right < NARROW
        };
        match self.bars.last_mut().filter(joins) {
            None => self.bars.push(new),
            Some(last) => {
                let (before, added) = (last.what.several(picture), new.what.several(picture));
                last.right = last.right.max(new.right);
                last.what = What::Several(Several {
                    slices: before.slices + added.slices,
                    failed: before.failed + added.failed,
                    name: before.name.filter(|name| added.name == Some(*name)),
                });
            }
        }
    }
}

impl What {
    fn several(&self, picture: &Picture) -> Several {
        match self {
            What::Several(several) => *several,
            What::Slice(slice) => {
                let slice = &picture.slices[*slice as usize];
                Several {
                    slices: 1,
                    failed: u64::from(matches!(slice.state, State::Failed(_))),
                    name: Some(slice.name),
                }
            }
        }
    }
}
