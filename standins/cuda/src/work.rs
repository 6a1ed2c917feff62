//! Work on streams: what it does when it runs, and how it gets into a queue of the simulated
//! device.

use crate::codes::{CUDA_ERROR_INVALID_HANDLE, CUDA_ERROR_OPERATING_SYSTEM, CUresult, Done};
use crate::context::{Context, Trouble};
use crate::control;
use crate::entry::IN_HOST_FUNCTION;
use crate::face::Face;
use crate::ipc::Shared;
use crate::memory::{Memory, Span};
use crate::module::Kernel;
use fencepost_sim::{Command, Flag, Submission, TimestampQuery};
use std::ffi::c_void;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// The place in a stream behind some piece of work.
#[derive(Debug)]
pub(crate) struct Point {
    done: AtomicBool,
    /// The context's: once it has failed, a point that is not done never will be.
    trouble: Arc<Trouble>,
    pub(crate) query: Option<TimestampQuery>,
    /// A record that another process may have made.
    shared: Option<(Arc<Shared>, u64)>,
}

impl Point {
    fn new(context: &Context, query: Option<TimestampQuery>) -> Arc<Point> {
        Arc::new(Point {
            done: AtomicBool::new(false),
            trouble: context.trouble.clone(),
            query,
            shared: None,
        })
    }

    pub(crate) fn shared(context: &Context, shared: Arc<Shared>, record: u64) -> Arc<Point> {
        Arc::new(Point {
            done: AtomicBool::new(false),
            trouble: context.trouble.clone(),
            query: None,
            shared: Some((shared, record)),
        })
    }

    fn is_done(&self) -> bool {
        let shared = self.shared.as_ref();
        self.done.load(Ordering::SeqCst)
            || shared.is_some_and(|(shared, record)| shared.is_complete(*record))
    }

    /// `None` while it is pending.
    pub(crate) fn result(&self) -> Option<Done> {
        if self.is_done() {
            return Some(Ok(()));
        }
        self.trouble.check().err().map(Err)
    }

    /// Done, or never to be: streams of other contexts that wait for it go on then, since nothing
    /// may hang.
    pub(crate) fn settled(&self) -> bool {
        self.result().is_some()
    }

    pub(crate) fn wait(self: &Arc<Point>) -> Command {
        let point = self.clone();
        Command::wait_until(move || point.settled())
    }
}

/// Blocks until the points are done or their context has failed.
pub(crate) fn wait_all(context: &Context, points: &[Arc<Point>]) -> Done {
    for point in points {
        // nobody wakes us when another process has gone on
        let look = point.shared.as_ref().map(|_| Duration::from_millis(1));
        while !point.settled() {
            let _ = context.device.wait_until(look, || point.settled());
        }
        point.result().unwrap_or(Ok(()))?;
    }
    Ok(())
}

/// How a wait looks at a word: `CUstreamWaitValue_flags`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Compare {
    Geq,
    Eq,
    And,
    Nor,
}

impl Compare {
    fn holds(self, word: u32, value: u32) -> bool {
        match self {
            // cyclic, so that counters may wrap
            Compare::Geq => word.wrapping_sub(value) as i32 >= 0,
            Compare::Eq => word == value,
            Compare::And => word & value != 0,
            Compare::Nor => !(word | value) != 0,
        }
    }
}

/// A `CUhostFn` and its argument.
#[derive(Clone, Copy)]
pub(crate) struct HostFunction {
    pub(crate) call: unsafe extern "C" fn(*mut c_void),
    pub(crate) data: *mut c_void,
}

// SAFETY: cuLaunchHostFunc calls the function on a thread of the driver's, so whoever launches it
// must see to it that this is sound
unsafe impl Send for HostFunction {}
// SAFETY: as above; nothing is done with it but to copy it
unsafe impl Sync for HostFunction {}

impl fmt::Debug for HostFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("host function")
    }
}

/// One piece of work, which a graph may run again.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Kernel(Kernel),
    /// A launch that fails.
    Trap(CUresult),
    Copy {
        from: u64,
        to: u64,
        len: usize,
    },
    Upload {
        bytes: Arc<[u8]>,
        to: u64,
    },
    /// To memory of the calling thread, which copies it on once it has waited.
    Download {
        from: u64,
        into: Arc<Mutex<Vec<u8>>>,
    },
    Fill {
        to: u64,
        pattern: Vec<u8>,
        times: usize,
    },
    Write {
        word: Span,
        value: u32,
    },
    Wait {
        word: Span,
        value: u32,
        compare: Compare,
    },
    Host(HostFunction),
}

impl Op {
    fn run(&self, memory: &Memory, context: &Context) -> Done {
        match self {
            Op::Kernel(kernel) => kernel.run(memory, context),
            Op::Trap(code) => Err(*code),
            Op::Copy { from, to, len } => memory.span(*to, *len)?.write(&memory.read(*from, *len)?),
            Op::Upload { bytes, to } => memory.span(*to, bytes.len())?.write(bytes),
            Op::Download { from, into } => {
                let mut into = into.lock().unwrap_or_else(PoisonError::into_inner);
                *into = memory.read(*from, into.len())?;
                Ok(())
            }
            Op::Fill { to, pattern, times } => {
                let bytes = pattern.repeat(*times);
                memory.span(*to, bytes.len())?.write(&bytes)
            }
            Op::Write { word, value } => {
                word.word(0)?.store(*value, Ordering::SeqCst);
                Ok(())
            }
            Op::Wait { .. } | Op::Host(_) => Ok(()),
        }
    }
}

/// The thread of the driver that host functions run on, one after the other. It is not the one that
/// steps the device: a host function that blocks holds up other host functions, which the driver
/// may do, but not the GPU.
#[derive(Clone, Debug)]
pub(crate) struct HostFunctions(Sender<(HostFunction, Flag)>);

impl HostFunctions {
    pub(crate) fn spawn() -> Done<HostFunctions> {
        let (sender, jobs) = channel::<(HostFunction, Flag)>();
        std::thread::Builder::new()
            .name("simulated driver".into())
            .spawn(move || {
                IN_HOST_FUNCTION.set(true);
                for (function, done) in jobs {
                    // SAFETY: cuLaunchHostFunc asks for a function that may be called with this
                    // argument when its turn in the stream has come
                    unsafe { (function.call)(function.data) };
                    done.set();
                }
            })
            .map_err(|_| CUDA_ERROR_OPERATING_SYSTEM)?;
        Ok(HostFunctions(sender))
    }
}

impl Face {
    /// What the device has to do for a piece of work.
    pub(crate) fn commands(&self, context: &Arc<Context>, op: &Op) -> Done<Vec<Command>> {
        match op {
            Op::Wait {
                word,
                value,
                compare,
            } => {
                let (word, value, compare) = (word.clone(), *value, *compare);
                let holds = move || {
                    word.word(0)
                        .is_ok_and(|word| compare.holds(word.load(Ordering::SeqCst), value))
                };
                Ok(vec![Command::wait_until(holds)])
            }
            Op::Host(function) => {
                let done = context
                    .device
                    .new_flag(false)
                    .map_err(|error| context.code_of(&error))?;
                let (jobs, function) = (self.host_functions.clone(), *function);
                let told = done.clone();
                let start = move || {
                    if jobs.0.send((function, told.clone())).is_err() {
                        told.set();
                    }
                };
                Ok(vec![Command::run(start), Command::wait_flag(&done)])
            }
            Op::Kernel(kernel) if kernel.held().is_some() => {
                // the clock follows real time, and other streams go on
                let (begun, time) = (Arc::new(OnceLock::new()), kernel.held().unwrap_or_default());
                let begin = begun.clone();
                let begin = move || {
                    let _ = begin.set(Instant::now());
                };
                let over = move || begun.get().is_none_or(|begun| begun.elapsed() >= time);
                let begin = Command::run(begin);
                Ok(vec![begin, Command::wait_until(over)])
            }
            _ => {
                // weak, since work that owned its device would keep it alive
                let (op, memory) = (op.clone(), self.memory.clone());
                let context = Arc::downgrade(context);
                let work = move || {
                    let Some(context) = context.upgrade() else {
                        return;
                    };
                    if let Err(code) = op.run(&memory, &context) {
                        context.fail(code, "work on a stream failed");
                    }
                };
                Ok(vec![Command::run(work)])
            }
        }
    }

    /// Puts commands behind everything in a stream, and gives the point behind them.
    pub(crate) fn submit(
        &mut self,
        stream: usize,
        commands: Vec<Command>,
        query: Option<TimestampQuery>,
    ) -> Done<Arc<Point>> {
        let barriers = self.barriers(stream)?;
        let stream = self
            .streams
            .get_mut(stream)
            .map_err(|_| CUDA_ERROR_INVALID_HANDLE)?;
        let point = submit_to(&stream.context, &stream.queue, &barriers, commands, query)?;
        stream.last = Some(point.clone());
        if self.depth > 0 && stream.queue.pending() >= self.depth {
            self.filled = Some((stream.context.clone(), stream.queue.clone()));
        }
        Ok(point)
    }

    /// What work on this stream must wait for because of the legacy default stream:
    /// <https://docs.nvidia.com/cuda/cuda-driver-api/stream-sync-behavior.html>.
    pub(crate) fn barriers(&self, stream: usize) -> Done<Vec<Arc<Point>>> {
        let own = self
            .streams
            .get(stream)
            .map_err(|_| CUDA_ERROR_INVALID_HANDLE)?;
        if own.is_legacy() {
            return Ok(self.ends_of(&own.context, false));
        }
        let legacy = self
            .defaults
            .get(&(own.context.id, None))
            .filter(|_| own.blocks_legacy())
            .and_then(|&legacy| self.streams.get(legacy).ok())
            .and_then(|legacy| legacy.last.clone());
        Ok(legacy
            .into_iter()
            .filter(|point| !point.settled())
            .collect())
    }

    /// Puts a piece of work into a stream, or into the graph that is being captured from it.
    pub(crate) fn push(&mut self, stream: usize, op: Op) -> Done<Option<Arc<Point>>> {
        let context = self.enter(stream)?;
        let op = match op {
            Op::Kernel(_) => self.faulty(&context).unwrap_or(op),
            op => op,
        };
        if self.capture_node(stream, &op)? {
            return Ok(None);
        }
        let commands = self.commands(&context, &op)?;
        self.submit(stream, commands, None).map(Some)
    }

    /// The launch failure that a test has planned for this launch.
    fn faulty(&mut self, context: &Context) -> Option<Op> {
        let plan = &mut self.gpus.get_mut(context.gpu)?.bad_launches;
        for (left, _) in plan.iter_mut() {
            *left = left.saturating_sub(1);
        }
        let due = plan.iter().position(|(left, _)| *left == 0)?;
        control::note("a planned launch failure");
        Some(Op::Trap(plan.remove(due).1))
    }
}

pub(crate) fn submit_to(
    context: &Context,
    queue: &fencepost_sim::Queue,
    after: &[Arc<Point>],
    commands: Vec<Command>,
    query: Option<TimestampQuery>,
) -> Done<Arc<Point>> {
    let point = Point::new(context, query);
    let mut submission = Submission::new();
    for earlier in after {
        submission = submission.then(earlier.wait());
    }
    for command in commands {
        submission = submission.then(command);
    }
    if let Some(query) = &point.query {
        submission = submission.timestamp(query);
    }
    let behind = point.clone();
    submission = submission.run(move || behind.done.store(true, Ordering::SeqCst));
    queue
        .submit(submission)
        .map_err(|error| context.code_of(&error))?;
    Ok(point)
}
