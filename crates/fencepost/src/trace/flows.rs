//! Where a file puts the two ends of each arrow.
//!
//! Readers take the end that happened first as the arrow's begin; at equal times, the one that
//! stands first in the file. A slice counts from its begin. So the begin of an arrow goes onto its
//! slice, and its end onto a slice that begins later, or onto an instant of its own that stands at
//! the end of the file.

use super::{
    lanes::Lanes,
    picture::{ArrowEnd, On, Picture},
};

#[derive(Debug, Default)]
pub(super) struct Flows {
    /// Slice and arrow, in the order of the slices.
    on_slices: Vec<(u32, u32)>,
    on_marks: Vec<(u32, u32)>,
    pub(super) late: Vec<Late>,
}

/// The end of an arrow that cannot stand at the begin of its slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Late {
    pub(super) arrow: u32,
    /// Where the arrow ends; not before its begin, whatever the two clocks say.
    pub(super) time: i64,
}

impl Late {
    /// The lane that it is on.
    pub(super) fn lane(&self, picture: &Picture, lanes: &Lanes) -> usize {
        let to = picture.arrows[self.arrow as usize].to;
        match to.on {
            On::Slice(slice) => lanes.of_slice(slice),
            On::Mark(_) => lanes.of_marks(to.track),
        }
    }
}

impl Flows {
    pub(super) fn of(picture: &Picture) -> Self {
        let mut flows = Self::default();
        for (number, arrow) in picture.arrows.iter().enumerate() {
            let number = number as u32;
            let from = begin(picture, arrow.from);
            flows.put(arrow.from.on, number);
            if begin(picture, arrow.to) > from {
                flows.put(arrow.to.on, number);
            } else {
                flows.late.push(Late {
                    arrow: number,
                    time: arrow.to.time.max(from),
                });
            }
        }
        flows.on_slices.sort_unstable();
        flows.on_marks.sort_unstable();
        flows
    }

    fn put(&mut self, on: On, arrow: u32) {
        match on {
            On::Slice(slice) => self.on_slices.push((slice, arrow)),
            On::Mark(mark) => self.on_marks.push((mark, arrow)),
        }
    }

    /// The arrows that begin or end at a slice or mark.
    pub(super) fn at(&self, on: On) -> impl Iterator<Item = u32> + '_ {
        let (all, number) = match on {
            On::Slice(slice) => (&self.on_slices, slice),
            On::Mark(mark) => (&self.on_marks, mark),
        };
        let first = all.partition_point(|(at, _)| *at < number);
        all[first..]
            .iter()
            .take_while(move |(at, _)| *at == number)
            .map(|(_, arrow)| *arrow)
    }
}

/// When a reader meets what an arrow is on.
fn begin(picture: &Picture, end: ArrowEnd) -> i64 {
    match end.on {
        On::Slice(slice) => picture.slices[slice as usize].start,
        On::Mark(mark) => picture.marks[mark as usize].time,
    }
}
