//! How far each stream is: what was seen of it, and what the driver says.
//!
//! The driver is asked on a thread of its own. While another thread is in a call that holds the
//! driver's locks, a query may not return; then the report is made without it.

use std::{
    collections::HashMap,
    ffi::c_int,
    sync::{
        Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    time::Duration,
};

use crate::{
    driver::{Driver, NOT_READY, SUCCESS},
    events::{self, EventState},
    lock::Me,
    seen::{self, Inner, Life, Mark, Stream, StreamOf},
    threads, vulkan,
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Idle,
    Busy,
    /// The driver's code.
    Failed(c_int),
    /// Why it is not known.
    NotAsked(&'static str),
}

/// A stream, as far as it is known.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) of: StreamOf,
    /// With `complete` as the driver says.
    pub(crate) inner: Inner,
    pub(crate) state: State,
    /// Whether a record of it is pending, as far as events still tell.
    pub(crate) has_pending_record: bool,
    pub(crate) device: Option<c_int>,
}

impl Facts {
    pub(crate) fn has_work(&self) -> bool {
        self.state != State::Idle && self.inner.complete < self.inner.submitted
    }

    /// Of a destroyed stream with work, behind its name or `it`.
    pub(crate) fn destroyed_words(&self) -> &'static str {
        match self.has_pending_record {
            true => "was destroyed with this work pending",
            false => "was destroyed, and whether this work is done is unknown",
        }
    }

    /// Whether that is known. A destroyed stream ends its work, and nobody can ask for it.
    pub(crate) fn is_busy(&self) -> bool {
        self.has_work() && (self.inner.life != Life::Destroyed || self.has_pending_record)
    }
}

/// What is known of CUDA's streams and of Vulkan's queues.
pub(crate) type Known = (Vec<Facts>, vulkan::account::Account);

/// Asks the driver, on its own thread.
#[derive(Debug)]
pub(crate) struct Asker {
    requests: Mutex<Sender<()>>,
    answers: Mutex<Receiver<Known>>,
    /// Whether a request is not answered yet.
    waits: Mutex<bool>,
}

impl Asker {
    pub(crate) fn start() -> std::io::Result<Asker> {
        let (requests, asked) = channel();
        let (answered, answers) = channel();
        std::thread::Builder::new()
            .name("fencepost-ask".into())
            .spawn(move || {
                crate::callback::guarded(|| {
                    let mut devices = HashMap::new();
                    let mut driver = None;
                    while let Ok(()) = asked.recv() {
                        if driver.is_none() {
                            driver = Driver::find();
                            driver.inspect(Driver::relax);
                        }
                        let facts = all_facts(driver.as_ref(), &mut devices);
                        let vulkan = vulkan::asking::account(true);
                        if answered.send((facts, vulkan)).is_err() {
                            return;
                        }
                    }
                });
            })?;
        Ok(Asker {
            requests: Mutex::new(requests),
            answers: Mutex::new(answers),
            waits: Mutex::new(false),
        })
    }

    /// What is known now. `false`: a driver did not answer within `limit`.
    pub(crate) fn ask(&self, limit: Duration) -> (Known, bool) {
        let mut waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if *waits && answers.try_recv().is_ok() {
            *waits = false;
        }
        if !*waits {
            let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
            *waits = requests.send(()).is_ok();
        }
        match answers.recv_timeout(limit) {
            Ok(answer) => {
                *waits = false;
                (answer, true)
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                let facts = all_facts(None, &mut HashMap::new());
                ((facts, vulkan::asking::account(false)), false)
            }
        }
    }
}

/// Without a driver: what was seen alone.
fn all_facts(driver: Option<&Driver>, devices: &mut HashMap<usize, c_int>) -> Vec<Facts> {
    let mut all: Vec<Facts> = seen::streams()
        .into_iter()
        .filter_map(|entry| facts(entry, driver, devices))
        .collect();
    all.sort_by_key(|facts| facts.inner.number);
    all
}

fn facts(
    entry: &'static Stream,
    driver: Option<&Driver>,
    devices: &mut HashMap<usize, c_int>,
) -> Option<Facts> {
    let inner = entry.0.lock().snapshot();
    let of = StreamOf {
        entry,
        number: inner.number,
    };
    let mut facts = Facts {
        of,
        state: State::Idle,
        has_pending_record: false,
        device: devices.get(&inner.context).copied(),
        inner,
    };
    if facts.inner.life == Life::Lost {
        return None;
    }
    if facts.inner.complete >= facts.inner.submitted {
        return Some(facts);
    }
    facts.state = match driver {
        None => State::NotAsked("the driver does not answer"),
        Some(driver) => ask_stream(driver, &mut facts, devices),
    };
    if facts.state == State::Idle {
        facts.inner.complete = facts.inner.submitted;
    } else {
        let (complete, pending) = ask_marks(driver, &facts.inner);
        facts.inner.complete = facts.inner.complete.max(complete);
        facts.has_pending_record = pending;
    }
    let mut inner = entry.0.lock();
    if inner.number == facts.inner.number {
        inner.complete = inner.complete.max(facts.inner.complete);
    }
    Some(facts)
}

fn ask_stream(driver: &Driver, facts: &mut Facts, devices: &mut HashMap<usize, c_int>) -> State {
    let Facts { of, inner, .. } = facts;
    if inner.life == Life::Destroyed {
        return State::NotAsked("it was destroyed");
    }
    if inner.thread != 0 {
        return State::NotAsked("only its own thread can ask for it");
    }
    let is_there = || {
        let now = of.entry.0.lock();
        now.number == of.number && now.life == Life::Alive && seen::forbidden().is_none()
    };
    let (handle, context) = (inner.handle, inner.context);
    let query = || {
        let query = |device: Option<c_int>| {
            // SAFETY: `while_there` keeps it from being destroyed
            (device, unsafe { driver.stream_query(handle) })
        };
        match context {
            0 => Some(query(None)),
            // SAFETY: `while_there` keeps it from being destroyed
            _ => unsafe { driver.within(context, query) },
        }
    };
    match seen::ASKED.while_there([handle.max(1), context], is_there, query) {
        None | Some(None) => State::NotAsked(seen::forbidden().unwrap_or("it was destroyed")),
        Some(Some((device, code))) => {
            if let Some(device) = device {
                devices.insert(context, device);
                facts.device = Some(device);
            }
            match code {
                SUCCESS => State::Idle,
                NOT_READY => State::Busy,
                code => State::Failed(code),
            }
        }
    }
}

/// Up to where the stream's work is complete, by the records whose events still hold them, and
/// whether one of these is pending, or not asked for.
fn ask_marks(driver: Option<&Driver>, inner: &Inner) -> (u64, bool) {
    let marks: Vec<&Mark> = inner
        .marks
        .iter()
        .filter(|mark| mark.position > inner.complete && holds(mark))
        .collect();
    // They complete in their order. One whose event was recorded again meanwhile counts as pending.
    let complete = driver.map_or(0, |driver| {
        marks.partition_point(|mark| is_complete(driver, mark))
    });
    let last = complete.checked_sub(1).and_then(|last| marks.get(last));
    (last.map_or(0, |mark| mark.position), complete < marks.len())
}

fn holds(mark: &Mark) -> bool {
    !threads::is_being_recorded(mark.event)
        && matches!(
            events::event(Me::get(), mark.event),
            Some(EventState::Recorded(now)) if now.is(mark)
        )
}

fn is_complete(driver: &Driver, mark: &Mark) -> bool {
    let is_there = || holds(mark) && seen::forbidden().is_none();
    let query = || {
        // SAFETY: `while_there` keeps it from being destroyed
        unsafe { driver.event_query(mark.event) }
    };
    let code = seen::ASKED.while_there([mark.event, 0], is_there, query);
    // If it was recorded again in between, the answer is about that record.
    code == Some(SUCCESS) && holds(mark)
}
