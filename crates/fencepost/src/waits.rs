//! The graph of waits, and its telling: from a pending marker along the waits to what is stuck.
//!
//! This module knows no stream of the library and no driver. The timeouts of the library feed it
//! with what the host knows of its streams; `fencepost watch` feeds it with what it has seen of the
//! calls of another program. So both find the same circles and say the same sentences.

use std::{
    borrow::Cow,
    collections::HashMap,
    fmt::{self, Write as _},
    time::Duration,
};

use crate::{error::InWords, place::Place};

/// A marker: a point of one stream.
pub trait Mark {
    /// The number of its stream, which no other stream has.
    fn stream(&self) -> u64;

    /// Where in its stream it is: whatever has a lower position is in front of it.
    fn position(&self) -> u64;

    /// Whether it is known to be pending. Never blocks.
    fn is_pending(&self) -> bool;
}

/// A marker on a walk.
#[derive(Debug)]
pub struct Step<M> {
    /// The marker that is awaited.
    pub marker: M,
    /// Whether host work of the stream before blocks on it, or that stream's queue is parked.
    pub in_work: bool,
    /// Whether the stream before waits for it on its device, so that this wait may be over.
    pub on_device: bool,
    /// The wait is in front of all markers of the stream before that have a higher position.
    pub after: u64,
}

/// Where a walk ends.
#[derive(Debug)]
pub enum Stop {
    /// At a marker that is no longer pending.
    Settled,
    /// At a marker behind a wait that is on the walk.
    Circle,
    /// At a stream that waits for nothing.
    NoWait,
}

/// The markers on the walk from `marker` along the waits. `next_of` gives the step from a marker to
/// the one that its stream waits for in front of it.
///
/// To come to a stream twice is no circle by itself. Where two streams wait for each other in turn,
/// the walk comes back to a marker that is in front of the wait by which it left the stream. There
/// it goes on; each time, it leaves the stream further in front.
pub fn walk<M: Mark>(marker: M, next_of: impl Fn(&M) -> Option<Step<M>>) -> (Vec<Step<M>>, Stop) {
    let mut path: Vec<Step<M>> = Vec::new();
    // The waits by which the walk has left the streams.
    let mut left: HashMap<u64, u64> = HashMap::new();
    let mut next = Some(Step {
        marker,
        in_work: false,
        on_device: false,
        after: 0,
    });
    while let Some(step) = next {
        let (stream, position) = (step.marker.stream(), step.marker.position());
        let pending = step.marker.is_pending();
        path.push(step);
        if !pending {
            return (path, Stop::Settled);
        }
        if left.get(&stream).is_some_and(|after| position > *after) {
            return (path, Stop::Circle);
        }
        next = path.last().and_then(|step| next_of(&step.marker));
        if let Some(next) = &next {
            // Streams go on meanwhile: by a wait that is not in front, a walk might never end.
            left.insert(stream, next.after.min(position.saturating_sub(1)));
        }
    }
    (path, Stop::NoWait)
}

/// Why a marker is pending.
#[derive(Debug)]
pub struct Explanation {
    /// In words. `None` where the awaited stream itself is at work, and nothing is known of it.
    pub text: Option<String>,
    /// Whether the text leaves out a line that nobody looked for.
    pub lacks_places: bool,
}

/// A marker that is waited for.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
pub struct Node {
    /// The marker's stream, as in `stream 3 "load"`.
    pub stream: String,
    /// The same with its device.
    pub full: String,
    /// Which of the stream's markers it is, counted from 1.
    pub value: u64,
    /// The line that recorded the marker, or made the gate.
    pub at: Place,
    /// What it is.
    pub what: What,
    /// What of the stream before waits for it.
    pub waiter: Waiter,
}

/// What is waited for.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
pub enum What {
    /// The marker of a stream.
    Marker,
    /// A gate.
    Gate,
    /// Anything else of a stream, in words that the stream's name follows: `a write of`.
    Other(Cow<'static, str>),
}

/// What of a stream waits.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
pub enum Waiter {
    /// The stream itself.
    Stream,
    /// Host work, and where it was launched.
    Work(Option<Place>),
}

/// What the last stream of a chain does.
#[derive(Debug)]
pub enum End {
    /// It runs host work.
    Runs {
        /// Where the work was launched.
        at: Place,
        /// For how long it has run.
        time: Duration,
    },
    /// No thread has started its host work.
    NotStarted {
        /// Where the work was launched.
        at: Place,
        /// Why there is no thread for it.
        exhausted: Option<String>,
    },
    /// Work on a device, behind this marker.
    Native {
        /// The last of its markers that is complete.
        complete: u64,
    },
    /// What is known of it in other words, which follow the stream's name.
    Other(String),
    /// A gate that the host has not opened.
    Closed,
    /// Nothing keeps it: it was seen between two of its steps.
    GoesOn,
    /// A marker of the chain is behind a wait of the chain. In words, what ends that, behind
    /// `which`: `never ends`.
    Circle(&'static str),
}

/// How many waits of a long chain are told at each of its ends.
const TOLD: usize = 2;

/// Tells a chain of `count` nodes, which `node_at` makes by their number: number 0 is the marker
/// that was awaited. Of a long chain only the nodes at its ends are made. `on_device` says whether
/// any of them waits on its device.
pub fn tell(
    count: usize,
    node_at: impl Fn(usize) -> Node,
    on_device: bool,
    end: &End,
) -> Explanation {
    let waits = count.saturating_sub(1);
    let left_out = waits.saturating_sub(2 * TOLD);
    // One line about a single stream is no shorter than to tell of it.
    let left_out = if left_out > 1 { left_out } else { 0 };
    let is_told = |wait: &usize| !(TOLD..TOLD + left_out).contains(wait);
    let told = (0..waits).filter(is_told);
    let told: Vec<_> = told
        .map(|wait| (node_at(wait), node_at(wait + 1)))
        .collect();
    let lacks_places = told.iter().any(|(_, node)| !node.at.is_known());
    let Some(last) = count.checked_sub(1).map(node_at) else {
        return Explanation {
            text: None,
            lacks_places,
        };
    };
    if told.is_empty() {
        let text = match end {
            End::Native { .. } | End::Circle(_) => None,
            end => Some(end.words(&last, &last.stream)),
        };
        return Explanation { text, lacks_places };
    }
    let mut text = match (end, count - 2) {
        (End::Circle(ends), _) => format!("the waits form a circle, which {ends}"),
        (end, between) => {
            let between = match between {
                0 => String::new(),
                1 => " (1 stream lies between)".into(),
                many => format!(" ({many} streams lie between)"),
            };
            // The host does not learn when a wait on the device is over.
            let seen = match on_device {
                true => "as far as the host sees, ",
                false => "",
            };
            let end = end.words(&last, "it");
            format!("{seen}stuck is {}{between}: {end}", last.full)
        }
    };
    for (number, (one, two)) in told.iter().enumerate() {
        if number == TOLD && left_out != 0 {
            let _ = write!(text, "; … {left_out} more streams …");
        }
        let separator = if number == 0 { ". The waits: " } else { "; " };
        let _ = write!(text, "{separator}{}{}", Subject(one, &two.waiter), two);
    }
    Explanation {
        text: Some(text),
        lacks_places,
    }
}

/// Who waits.
struct Subject<'a>(&'a Node, &'a Waiter);

impl fmt::Display for Subject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stream = &self.0.stream;
        match self.1 {
            Waiter::Stream => write!(f, "{stream} waits"),
            Waiter::Work(None) => write!(f, "a closure that {stream} runs waits"),
            Waiter::Work(Some(at)) => {
                write!(
                    f,
                    "the closure launched at {at}, which {stream} runs, waits"
                )
            }
        }
    }
}

/// What is waited for.
impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = match &self.what {
            What::Gate => {
                write!(f, " for {}", self.full)?;
                "made at"
            }
            What::Marker => {
                write!(f, " for marker {} of {}", self.value, self.full)?;
                "recorded at"
            }
            What::Other(what) => {
                write!(f, " for {what} {}", self.full)?;
                "submitted at"
            }
        };
        match self.at.is_known() {
            true => write!(f, ", {at} {}", self.at),
            false => Ok(()),
        }
    }
}

impl End {
    /// The sentence about the stream of `node`, which `stream` stands for.
    fn words(&self, node: &Node, stream: &str) -> String {
        match self {
            End::Runs { at, time } => format!(
                "{stream} has been running the closure launched at {at} for {}",
                InWords(*time)
            ),
            End::NotStarted { at, exhausted } => {
                let why = exhausted.as_ref().map(|why| format!(": {why}"));
                let why = why.unwrap_or_default();
                format!("{stream} has not started the closure launched at {at}{why}")
            }
            End::Native { complete } if *complete + 1 == node.value => {
                format!("the work in front of marker {} is not done", node.value)
            }
            End::Native { complete } => format!(
                "the work between its markers {complete} and {} is not done",
                node.value
            ),
            End::Other(what) => format!("{stream} {what}"),
            End::Closed => format!("{stream} is not opened yet"),
            End::GoesOn => format!("{stream} goes on at this moment"),
            End::Circle(_) => String::new(),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// A chain of streams, from number `from` down to number 1.
    fn chain(from: u64) -> Vec<Node> {
        let node = |number: u64| Node {
            stream: format!("stream {number}"),
            full: format!("stream {number} of host"),
            value: 1,
            at: Place::of_line("load.py", number as u32),
            what: What::Marker,
            waiter: Waiter::Stream,
        };
        (1..=from).rev().map(node).collect()
    }

    fn told(nodes: &[Node], end: &End) -> Explanation {
        tell(nodes.len(), |at| nodes[at].clone(), false, end)
    }

    fn text(nodes: &[Node], end: &End) -> String {
        told(nodes, end).text.unwrap()
    }

    #[test]
    fn the_end_of_a_chain_is_told_first() {
        let end = End::Runs {
            at: Place::of_line("load.py", 70),
            time: Duration::from_millis(3200),
        };
        assert_eq!(
            text(&chain(3), &end),
            "stuck is stream 1 of host (1 stream lies between): it has been running the closure \
             launched at load.py:70 for 3.2 s. The waits: stream 3 waits for marker 1 of stream 2 \
             of host, recorded at load.py:2; stream 2 waits for marker 1 of stream 1 of host, \
             recorded at load.py:1"
        );
        assert_eq!(
            text(&chain(1), &end),
            "stream 1 has been running the closure launched at load.py:70 for 3.2 s"
        );
    }

    #[test]
    fn of_a_long_chain_the_first_and_last_are_told() {
        let told = text(&chain(20), &End::Native { complete: 0 });
        assert!(
            told.starts_with(
                "stuck is stream 1 of host (18 streams lie between): the work in front"
            ),
            "{told}"
        );
        for part in [
            "stream 20 waits for marker 1 of stream 19",
            "stream 19 waits for marker 1 of stream 18 of host, recorded at load.py:18; \
             … 15 more streams …; stream 3 waits",
            "stream 2 waits for marker 1 of stream 1 of host",
        ] {
            assert!(told.contains(part), "\"{part}\" is not in: {told}");
        }
        assert_eq!(told.matches("waits for").count(), 4);
        assert!(!text(&chain(6), &End::GoesOn).contains("more streams"));
    }

    #[test]
    fn a_circle_is_called_so() {
        let mut nodes = chain(3);
        nodes.push(chain(3).remove(0));
        nodes[2].waiter = Waiter::Work(Some(Place::of_line("load.py", 9)));
        let told = text(&nodes, &End::Circle("never ends"));
        assert!(
            told.starts_with("the waits form a circle, which never ends")
                && told.contains("the closure launched at load.py:9, which stream 2 runs, waits")
                && told.contains("stream 1 waits for marker 1 of stream 3"),
            "{told}"
        );
    }

    #[test]
    fn what_else_is_known_of_the_end_is_told_of_it() {
        let end = End::Other("waits for a value in memory".into());
        assert!(text(&chain(2), &end).starts_with(
            "stuck is stream 1 of host: it waits for a value in memory. The waits: stream 2"
        ));
        assert_eq!(
            text(&chain(1), &end),
            "stream 1 waits for a value in memory"
        );
    }

    /// A marker: its stream, its position, and whether it is pending.
    struct Of(u64, u64, bool);

    impl Mark for Of {
        fn stream(&self) -> u64 {
            self.0
        }

        fn position(&self) -> u64 {
            self.1
        }

        fn is_pending(&self) -> bool {
            self.2
        }
    }

    /// Where a walk from position 9 of stream 1 ends, and by which streams it comes. `next` gives
    /// the position of a stream's wait, and what is awaited there.
    fn walked(next: impl Fn(&Of) -> Option<(u64, Of)>) -> (Vec<u64>, Stop) {
        let (path, stop) = walk(Of(1, 9, true), |mark: &Of| {
            let (at, marker) = next(mark)?;
            Some(Step {
                marker,
                in_work: false,
                on_device: true,
                after: at - 1,
            })
        });
        (path.iter().map(|step| step.marker.0).collect(), stop)
    }

    #[test]
    fn a_walk_ends_where_nothing_is_awaited_or_pending_or_at_a_circle() {
        let next = |mark: &Of| (mark.0 < 3).then_some((1, Of(mark.0 + 1, 1, true)));
        assert!(matches!(walked(next), (path, Stop::NoWait) if path == [1, 2, 3]));
        let settled = |mark: &Of| Some((1, Of(mark.0 + 1, 1, false)));
        assert!(matches!(walked(settled), (path, Stop::Settled) if path == [1, 2]));
        let back = |mark: &Of| Some((1, Of(mark.0 % 3 + 1, 1, true)));
        assert!(matches!(walked(back), (path, Stop::Circle) if path == [1, 2, 3, 1]));
    }

    /// The waits of streams, each at a position, for a marker: the first that is in front.
    fn first_of(waits: &[(u64, u64, (u64, u64))], mark: &Of) -> Option<(u64, Of)> {
        let mut in_front = waits
            .iter()
            .filter(|(of, at, _)| *of == mark.0 && *at <= mark.1);
        let (_, at, (stream, position)) = in_front.next()?;
        Some((*at, Of(*stream, *position, true)))
    }

    #[test]
    fn streams_that_wait_for_each_other_in_turn_are_no_circle() {
        // Stream 2 waits for what stream 1 did first, and stream 1 for stream 2 after that.
        let fork_and_join = [(1, 3, (2, 2)), (2, 1, (1, 2))];
        let (path, stop) = walked(|mark| first_of(&fork_and_join, mark));
        assert!(
            matches!(stop, Stop::NoWait) && path == [1, 2, 1],
            "{path:?}"
        );
        // As before, but what stream 1 did first is behind a wait for the join.
        let crossed = [(1, 1, (2, 2)), (2, 1, (1, 2))];
        let (path, stop) = walked(|mark| first_of(&crossed, mark));
        assert!(
            matches!(stop, Stop::Circle) && path == [1, 2, 1],
            "{path:?}"
        );
        // The circle is between others than the first.
        let behind = [(1, 1, (2, 5)), (2, 4, (3, 7)), (3, 6, (2, 4))];
        let (path, stop) = walked(|mark| first_of(&behind, mark));
        assert!(
            matches!(stop, Stop::Circle) && path == [1, 2, 3, 2],
            "{path:?}"
        );
    }

    #[test]
    fn a_walk_among_streams_that_go_on_ends() {
        // Each stream seems to wait behind the marker that the walk is at.
        let (_, stop) = walked(|mark| Some((50, Of(3 - mark.0, mark.1, true))));
        assert!(matches!(stop, Stop::Circle));
    }

    #[test]
    fn a_gate_is_called_so() {
        let mut nodes = chain(2);
        let gate = Node {
            stream: "gate 9 \"upload\"".into(),
            full: "gate 9 \"upload\" of host".into(),
            what: What::Gate,
            ..nodes.remove(1)
        };
        nodes.push(gate);
        assert_eq!(
            text(&nodes, &End::Closed),
            "stuck is gate 9 \"upload\" of host: it is not opened yet. The waits: stream 2 waits \
             for gate 9 \"upload\" of host, made at load.py:1"
        );
    }

    #[test]
    fn a_line_that_nobody_looked_for_is_left_out() {
        let mut nodes = chain(2);
        assert!(!told(&nodes, &End::GoesOn).lacks_places);
        nodes[1].at = Place::unknown();
        let told = told(&nodes, &End::GoesOn);
        assert!(told.lacks_places);
        assert!(!told.text.unwrap().contains("recorded at"));
    }
}
