//! Why a wait does not end, in words: the chain of waits from a pending marker to what is stuck.

use std::{
    fmt::{self, Write as _},
    sync::Arc,
    time::Duration,
};

use crate::{
    contract::MarkerImpl,
    core::{Doing, StreamCore},
    deadlock::{Step, Stop, walk},
    error::{Error, InWords, Timeout},
    place::Place,
    sync::Ordering,
    timeline::{Awaited, Point},
};

/// The error of a wait for `marker` that has ended at `limit`.
pub(crate) fn timeout(marker: &Arc<dyn MarkerImpl>, limit: Duration) -> Error {
    let point = marker.point();
    let stream = &point.timeline.stream;
    let explanation = explain(marker);
    Error::Timeout(Box::new(Timeout {
        limit,
        marker: point.value,
        stream: stream.to_string(),
        recorded_at: point.at,
        completed: point.timeline.completed(),
        recorded: stream.recorded.load(Ordering::Relaxed),
        event: None,
        held_up_by: explanation.text,
        lacks_places: explanation.lacks_places,
    }))
}

/// Why a marker is pending.
pub(crate) struct Explanation {
    /// In words. `None` where the awaited stream itself is at work, and nothing is known of it.
    pub(crate) text: Option<String>,
    /// Whether the text leaves out a line that nobody looked for.
    pub(crate) lacks_places: bool,
}

/// A marker that is waited for.
struct Node {
    /// The marker's stream, as in `stream 3 "load"`.
    stream: String,
    /// The same with its device.
    full: String,
    value: u64,
    /// The line that recorded the marker, or made the gate.
    at: Place,
    /// Whether it is a gate, and no stream's marker.
    is_gate: bool,
    /// What of the stream before waits for it.
    waiter: Waiter,
    /// Whether it waits on its device.
    on_device: bool,
}

enum Waiter {
    Stream,
    /// Host work, and where it was launched.
    Work(Option<Place>),
}

/// What the last stream of a chain does.
enum End {
    Runs {
        at: Place,
        time: Duration,
    },
    NotStarted {
        at: Place,
        /// Why there is no thread for it.
        exhausted: Option<String>,
    },
    /// Work on a device, behind this marker.
    Native {
        complete: u64,
    },
    /// A gate that the host has not opened.
    Closed,
    /// Nothing keeps it: it was seen between two of its steps.
    GoesOn,
    Circle,
}

/// How many waits of a long chain are told at each of its ends.
const TOLD: usize = 2;

/// Why `marker` is pending.
pub(crate) fn explain(marker: &Arc<dyn MarkerImpl>) -> Explanation {
    let (steps, stop) = walk(marker.clone(), None, next_of);
    let end = match (stop, steps.last()) {
        (Stop::Circle, _) => End::Circle,
        (Stop::NoWait, Some(last)) => end_of(last.marker.point()),
        _ => End::GoesOn,
    };
    tell(&nodes_of(&steps), &end)
}

/// What the marker of a stream at a value waits for: what the host knows of, else what the device
/// has been told.
fn next_of(stream: &StreamCore, value: u64) -> Option<Step> {
    let known = stream.blocked();
    let known = known.and_then(|wait| Step::behind(wait, value));
    known.or_else(|| {
        Some(Step {
            marker: Arc::new(Awaiting(stream.device_wait(value)?)),
            in_work: false,
            on_device: true,
        })
    })
}

/// The point of a marker that may be gone.
struct Awaiting(Point);

impl Awaited for Awaiting {
    fn point(&self) -> &Point {
        &self.0
    }
}

fn end_of(point: &Point) -> End {
    match point.timeline.stream.doing() {
        Some(Doing::Runs { at, time }) => End::Runs { at, time },
        Some(Doing::NotStarted { at, exhausted }) => End::NotStarted { at, exhausted },
        Some(Doing::GoesOn) => End::GoesOn,
        None if point.timeline.stream.is_gate => End::Closed,
        None => End::Native {
            complete: point.timeline.completed(),
        },
    }
}

fn nodes_of(steps: &[Step]) -> Vec<Node> {
    let mut before: Option<&StreamCore> = None;
    let mut nodes = Vec::with_capacity(steps.len());
    for step in steps {
        let point = step.marker.point();
        let stream = &*point.timeline.stream;
        let waiter = match (step.in_work, before.and_then(StreamCore::doing)) {
            (false, _) => Waiter::Stream,
            (true, Some(Doing::Runs { at, .. })) => Waiter::Work(Some(at)),
            (true, _) => Waiter::Work(None),
        };
        nodes.push(Node {
            stream: stream.short(),
            full: stream.to_string(),
            value: point.value,
            at: point.at,
            is_gate: stream.is_gate,
            waiter,
            on_device: step.on_device,
        });
        before = Some(stream);
    }
    nodes
}

/// Tells a chain, whose first node is the marker that was awaited.
fn tell(nodes: &[Node], end: &End) -> Explanation {
    let mut waits: Vec<_> = nodes.windows(2).map(|pair| (&pair[0], &pair[1])).collect();
    let left_out = waits.len().saturating_sub(2 * TOLD);
    // One line about a single stream is no shorter than to tell of it.
    let left_out = if left_out > 1 { left_out } else { 0 };
    if left_out != 0 {
        waits.drain(TOLD..TOLD + left_out);
    }
    let lacks_places = waits.iter().any(|(_, node)| !node.at.is_known());
    let Some(last) = nodes.last() else {
        return Explanation {
            text: None,
            lacks_places,
        };
    };
    if waits.is_empty() {
        let text = match end {
            End::Native { .. } | End::Circle => None,
            end => Some(end.words(last, &last.stream)),
        };
        return Explanation { text, lacks_places };
    }
    let mut text = match (end, nodes.len() - 2) {
        (End::Circle, _) => String::from("the waits form a circle, which only a deadline ends"),
        (end, between) => {
            let between = match between {
                0 => String::new(),
                1 => " (1 stream lies between)".into(),
                many => format!(" ({many} streams lie between)"),
            };
            // The host does not learn when a wait on the device is over.
            let seen = match nodes.iter().any(|node| node.on_device) {
                true => "as far as the host sees, ",
                false => "",
            };
            let end = end.words(last, "it");
            format!("{seen}stuck is {}{between}: {end}", last.full)
        }
    };
    for (number, (one, two)) in waits.into_iter().enumerate() {
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
        match self.is_gate {
            true => write!(f, " for {}", self.full)?,
            false => write!(f, " for marker {} of {}", self.value, self.full)?,
        }
        match (self.at.is_known(), self.is_gate) {
            (true, true) => write!(f, ", made at {}", self.at),
            (true, false) => write!(f, ", recorded at {}", self.at),
            (false, _) => Ok(()),
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
            End::Closed => format!("{stream} is not opened yet"),
            End::GoesOn => format!("{stream} goes on at this moment"),
            End::Circle => String::new(),
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
            is_gate: false,
            waiter: Waiter::Stream,
            on_device: false,
        };
        (1..=from).rev().map(node).collect()
    }

    fn text(nodes: &[Node], end: &End) -> String {
        tell(nodes, end).text.unwrap()
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
        let told = text(&nodes, &End::Circle);
        assert!(
            told.starts_with("the waits form a circle")
                && told.contains("the closure launched at load.py:9, which stream 2 runs, waits")
                && told.contains("stream 1 waits for marker 1 of stream 3"),
            "{told}"
        );
    }

    #[test]
    fn a_gate_is_called_so() {
        let mut nodes = chain(2);
        let gate = Node {
            stream: "gate 9 \"upload\"".into(),
            full: "gate 9 \"upload\" of host".into(),
            is_gate: true,
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
        assert!(!tell(&nodes, &End::GoesOn).lacks_places);
        nodes[1].at = Place::unknown();
        let told = tell(&nodes, &End::GoesOn);
        assert!(told.lacks_places);
        assert!(!told.text.unwrap().contains("recorded at"));
    }
}
