//! Which slices of a track share a row of a file.
//!
//! Readers of traces take the slices of one row as calls of one thread: a slice that begins within
//! another must end within it. Where slices only overlap, readers lose or cut one of them. So a
//! track has as many rows, called lanes, as it takes for the slices of each lane to nest.

use super::picture::Picture;

/// A row of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lane {
    pub(super) track: u32,
    /// From 0 within its track.
    pub(super) number: u32,
}

#[derive(Debug)]
pub(super) struct Lanes {
    /// Those of a track stand side by side, in the order of the tracks. Every track has one.
    pub(super) lanes: Vec<Lane>,
    /// The number of the first lane of each track.
    first: Vec<u32>,
    /// The lane of each slice.
    of_slice: Vec<u32>,
}

/// What a lane consists of, in the order in which a reader must meet it: at equal times ends come
/// before begins, inner ends before outer ones, and outer begins before inner ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Of a slice, and how many of its lane are open around it.
    Begin(u32, usize),
    End(u32),
    /// A mark, and how many slices are open around it.
    Mark(u32, usize),
}

impl Lanes {
    /// The lanes of `picture`. Calls `step` for everything in them: the order is right within
    /// each lane; of several lanes of a track the steps are mixed.
    pub(super) fn of(picture: &Picture, mut step: impl FnMut(Lane, Step)) -> Self {
        let mut all = Self {
            lanes: Vec::with_capacity(picture.tracks.len()),
            first: Vec::with_capacity(picture.tracks.len()),
            of_slice: Vec::with_capacity(picture.slices.len()),
        };
        let (mut slices, mut marks) = (0, 0);
        for track in 0..picture.tracks.len() as u32 {
            let from = all.lanes.len() as u32;
            all.first.push(from);
            let mut open = Open::new(picture, track);
            let mut next_mark =
                |open: &mut Open<'_>, until: Option<i64>, step: &mut dyn FnMut(Lane, Step)| {
                    while let Some(mark) = picture.marks.get(marks) {
                        if mark.track != track || until.is_some_and(|until| mark.time >= until) {
                            break;
                        }
                        open.mark(marks as u32, step);
                        marks += 1;
                    }
                };
            while let Some(slice) = picture.slices.get(slices) {
                if slice.track != track {
                    break;
                }
                // A mark goes behind the slices that begin when it happened: it nests in them.
                next_mark(&mut open, Some(slice.start), &mut step);
                let number = open.begin(slices as u32, &mut step);
                all.of_slice.push(from + number);
                slices += 1;
            }
            next_mark(&mut open, None, &mut step);
            open.end_all(&mut step);
            let lanes = 0..open.stacks.len() as u32;
            all.lanes.extend(lanes.map(|number| Lane { track, number }));
        }
        all
    }

    /// The place of a lane in `lanes`.
    pub(super) fn index(&self, lane: Lane) -> usize {
        self.first[lane.track as usize] as usize + lane.number as usize
    }

    /// The lane of a slice, as an index into `lanes`.
    pub(super) fn of_slice(&self, slice: u32) -> usize {
        self.of_slice[slice as usize] as usize
    }

    /// The lane that marks of a track are in: its first, as an index into `lanes`.
    pub(super) fn of_marks(&self, track: u32) -> usize {
        self.first[track as usize] as usize
    }
}

/// The slices of a track that are open, by lane, outer ones first.
struct Open<'a> {
    picture: &'a Picture,
    track: u32,
    stacks: Vec<Vec<u32>>,
}

impl<'a> Open<'a> {
    fn new(picture: &'a Picture, track: u32) -> Self {
        let stacks = vec![Vec::new()];
        Self {
            picture,
            track,
            stacks,
        }
    }

    fn times(&self, slice: u32) -> (i64, i64) {
        let slice = &self.picture.slices[slice as usize];
        (slice.start, slice.end.max(slice.start))
    }

    fn lane(&self, number: usize) -> Lane {
        Lane {
            track: self.track,
            number: number as u32,
        }
    }

    /// Ends what is over in a lane when something begins at `start`.
    fn end_before(&mut self, lane: usize, start: i64, step: &mut dyn FnMut(Lane, Step)) {
        while let Some(&top) = self.stacks[lane].last() {
            if self.times(top).1 > start {
                break;
            }
            self.stacks[lane].pop();
            step(self.lane(lane), Step::End(top));
        }
    }

    /// Puts a slice into the lane with the innermost slice that it nests in, else into the first
    /// where nothing is open, else into a new one. Gives the lane's number.
    fn begin(&mut self, slice: u32, step: &mut dyn FnMut(Lane, Step)) -> u32 {
        let times = self.times(slice);
        let mut innermost: Option<(i64, usize)> = None;
        let mut free = None;
        for lane in 0..self.stacks.len() {
            self.end_before(lane, times.0, step);
            match self.stacks[lane].last() {
                None => free = free.or(Some(lane)),
                Some(&top) => {
                    let (began, ends) = self.times(top);
                    if ends >= times.1 && innermost.is_none_or(|(latest, _)| began > latest) {
                        innermost = Some((began, lane));
                    }
                }
            }
        }
        let lane = innermost.map(|(_, lane)| lane).or(free).unwrap_or_else(|| {
            self.stacks.push(Vec::new());
            self.stacks.len() - 1
        });
        let depth = self.stacks[lane].len();
        step(self.lane(lane), Step::Begin(slice, depth));
        self.stacks[lane].push(slice);
        lane as u32
    }

    fn mark(&mut self, mark: u32, step: &mut dyn FnMut(Lane, Step)) {
        let time = self.picture.marks[mark as usize].time;
        self.end_before(0, time, step);
        step(self.lane(0), Step::Mark(mark, self.stacks[0].len()));
    }

    fn end_all(&mut self, step: &mut dyn FnMut(Lane, Step)) {
        for lane in 0..self.stacks.len() {
            while let Some(top) = self.stacks[lane].pop() {
                step(self.lane(lane), Step::End(top));
            }
        }
    }
}
