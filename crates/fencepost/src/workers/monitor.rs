//! Finds workers that are blocked by means which this crate cannot see, so that others take their
//! place.
//!
//! **Blocked** is a worker whose thread is asleep and has not run since the look before. On a
//! loaded machine a thread that waits for a core stands still too; but the system calls it
//! runnable. Where the system tells no state, standing still is taken for blocked. Where it tells
//! no CPU time either, the oldest task is taken for blocked when no task was taken for a while.
//!
//! **The pace.** Only a worker that counts as running is replaced when it blocks, so a hundred
//! blocked tasks on a pool of two workers take fifty looks. A look each millisecond would take too
//! long, a look without a pause would keep a core busy. So the monitor pauses, and if it then finds
//! a blocked worker, it looks in quick succession until it has found a batch. A batch that came to
//! be full is followed by one of twice the size, other batches by one of half the size. When
//! nothing was found, the pause grows.
//!
//! **Inside a batch one look is enough**: a thread that does not run while its state is read is
//! taken for blocked. If it was asleep for a moment only, one worker too many is active until the
//! next look that follows a pause.

use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use super::{
    probe::{Probe, ThreadState},
    state::{Doing, Finding, Found, Monitor, Shared, State},
};
use crate::sync::{lock, park, sleep, thread};

const FIRST_PAUSE: Duration = Duration::from_millis(1);
/// After a full batch: short, since there are few batches before the threads are at their limit.
const SHORT_PAUSE: Duration = Duration::from_micros(250);
const LONGEST_PAUSE: Duration = Duration::from_millis(4);
/// For how long looks follow each other while none finds another blocked worker: longer than a
/// worker takes to wake up, to take a task and to block in it.
const QUICK: Duration = Duration::from_micros(500);
/// Between two of these looks. The system makes some 50 µs of it.
const NAP: Duration = Duration::from_micros(1);
/// The share of time that looks take at most is one in this many.
const LOOK_SHARE: u32 = 16;
/// For how long no task was taken before the oldest one counts as blocked, where the system cannot
/// tell.
const STALL: Duration = Duration::from_millis(5);
/// The same once [`MANY`] workers count as blocked: the tasks may well be computing.
const SLOW_STALL: Duration = Duration::from_millis(50);
const MANY: usize = 64;

struct Pace {
    pause: Duration,
    /// How many blocked workers are to be found without a pause.
    batch: usize,
}

const START: Pace = Pace {
    pause: FIRST_PAUSE,
    batch: 1,
};

/// When a task was last seen to have been taken, and how many were.
struct Taken(Instant, u64);

/// Notes what a look found, calls workers in place of those that are blocked, and gives how many
/// are [`Doing::Seen`].
type Note = fn(&Arc<Shared>, Vec<Found>) -> usize;

/// Watches the pool while tasks are queued, until it is dropped.
pub(super) fn run(pool: &Weak<Shared>, note: Note) {
    let mut pace = START;
    let mut taken = Taken(Instant::now(), 0);
    loop {
        sleep(pace.pause);
        let Some(shared) = pool.upgrade() else {
            return;
        };
        let mut state = lock(&shared.state);
        if state.closed {
            return;
        }
        if state.queue.is_empty() {
            state.monitor = Monitor::Asleep(thread::current());
            drop(state);
            // A sleeping monitor must not keep the pool's state alive. The pool's drop wakes it.
            drop(shared);
            park(None);
            pace = START;
            taken.0 = Instant::now();
            continue;
        }
        let before = state.seen;
        drop(state);
        find_batch(&shared, note, &mut pace, (&mut taken, before));
    }
}

fn find_batch(
    shared: &Arc<Shared>,
    note: Note,
    pace: &mut Pace,
    (taken, before): (&mut Taken, usize),
) {
    let began = Instant::now();
    let mut seen = note(shared, look(shared, pace.batch > 1, Some(taken)));
    let first_look = began.elapsed();
    let full = before + pace.batch;
    if seen > before {
        let (mut most, mut since) = (seen, Instant::now());
        while seen < full && since.elapsed() < QUICK {
            // The workers need the core. On a loaded machine a thread that sleeps gets it back
            // sooner than one that yields.
            sleep(NAP);
            seen = note(shared, look(shared, true, None));
            if seen > most {
                (most, since) = (seen, Instant::now());
            }
        }
    }
    *pace = match seen {
        _ if seen >= full => Pace {
            pause: SHORT_PAUSE,
            batch: pace.batch * 2,
        },
        // The workers may not have been given a core in time.
        _ if seen > before => Pace {
            pause: FIRST_PAUSE,
            batch: pace.batch.div_ceil(2),
        },
        _ => Pace {
            pause: (pace.pause * 2).min(LONGEST_PAUSE),
            batch: 1,
        },
    };
    pace.pause = pace.pause.max(first_look * LOOK_SHARE);
}

/// A worker that runs a task, as it was noted before a look.
struct Running {
    place: usize,
    task: u64,
    seen: bool,
    probe: Option<Arc<Probe>>,
    before: Option<u64>,
}

impl Running {
    /// Those that a look concerns. A quick one passes over those that are known to be blocked.
    fn of(state: &State, quick: bool) -> Vec<Running> {
        let workers = state.workers.iter().enumerate();
        let concerned = workers.filter(|(_, worker)| match worker.doing {
            Doing::Running => true,
            Doing::Seen => !quick,
            Doing::Coming | Doing::Told | Doing::Idle => false,
        });
        concerned
            .map(|(place, worker)| Running {
                place,
                task: worker.task,
                seen: worker.doing == Doing::Seen,
                probe: worker.probe.clone(),
                before: worker.cpu_time,
            })
            .collect()
    }

    /// Whether its thread runs. `None` where the system tells no CPU time.
    fn look(&self, in_batch: bool, quick: bool) -> Option<Finding> {
        let probe = self.probe.as_ref()?;
        let time = probe.cpu_time()?;
        let stands = self.before == Some(time);
        let blocked = match (stands || in_batch) && !self.seen {
            true => match probe.state() {
                ThreadState::Asleep => stands || probe.cpu_time() == Some(time),
                ThreadState::Unclear => !quick,
                ThreadState::Runnable => false,
            },
            false => stands,
        };
        Some(match blocked {
            true => Finding::Blocked(Some(time)),
            false => Finding::Runs(Some(time)),
        })
    }
}

/// Looks at the threads of the workers that run tasks. A quick look, without `taken`, passes over
/// those that are known to be blocked, and leaves what is unclear to the next look after a pause.
fn look(shared: &Shared, in_batch: bool, taken: Option<&mut Taken>) -> Vec<Found> {
    let quick = taken.is_none();
    let state = lock(&shared.state);
    let running = Running::of(&state, quick);
    let (taken_now, seen) = (state.taken, state.seen);
    drop(state);

    let mut found = Vec::new();
    let mut oldest_unknown: Option<(u64, usize)> = None;
    for worker in running {
        match worker.look(in_batch, quick) {
            Some(finding) => found.push((worker.place, worker.task, finding)),
            None => {
                let candidate = (worker.task, worker.place);
                if !worker.seen && oldest_unknown.is_none_or(|oldest| candidate < oldest) {
                    oldest_unknown = Some(candidate);
                }
            }
        }
    }
    if let Some(Taken(at, count)) = taken {
        if std::mem::replace(count, taken_now) != taken_now {
            *at = Instant::now();
        }
        let stall = if seen < MANY { STALL } else { SLOW_STALL };
        if let Some((task, place)) = oldest_unknown
            && at.elapsed() >= stall
        {
            *at = Instant::now();
            found.push((place, task, Finding::Blocked(None)));
        }
    }
    found
}
