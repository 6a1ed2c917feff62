//! The program's threads, and the followed calls that they are in.

use std::{
    cell::Cell,
    ffi::{CStr, c_char},
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
};

use fencepost::bindings::TIME_KEEPER;

use crate::{
    calls::{self, Kind},
    events::{self, EventCache, EventState},
    lock::{Lock, Me},
    seen::{self, StreamCache, StreamOf},
    traced::Traced,
};

/// A thread of the program, and the followed call that it is in.
// Threads write their entries in every call, so no two are in one line of the cache.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Thread {
    /// 0: it has ended, and the entry may be another's.
    pub(crate) tid: AtomicI32,
    /// The callback id of the call; 0: none.
    pub(crate) inside: AtomicU32,
    /// The function's name, which CUPTI keeps.
    pub(crate) name: AtomicPtr<c_char>,
    /// The event of a record that it makes or made.
    pub(crate) event: AtomicUsize,
    /// What is complete once the call has returned: streams, and their positions.
    pub(crate) awaits: Lock<Vec<(StreamOf, u64)>>,
    pub(crate) stream: AtomicUsize,
    pub(crate) context: AtomicUsize,
    pub(crate) entered: AtomicU64,
    /// When it began what it waits for in a call of Vulkan.
    pub(crate) began: AtomicU64,
    /// When it entered the call, and the calls that it has returned from, for a trace.
    pub(crate) begun: AtomicU64,
    pub(crate) traced: Lock<Vec<Traced>>,
    /// How many calls it has made. Only the thread writes it.
    pub(crate) calls: AtomicU64,
    /// How many of them submitted work, or waited for some.
    pub(crate) moves: AtomicU64,
    /// Whether it is the thread by which fencepost keeps the time of a device: it records an event
    /// five times a second, whatever else is stuck.
    pub(crate) keeps_time: AtomicBool,
}

/// What a thread keeps for itself.
#[derive(Debug)]
pub(crate) struct Here {
    thread: Cell<Option<&'static Thread>>,
    /// Whether the thread is ending.
    ends: Cell<bool>,
    me: Cell<Option<Me>>,
    pub(crate) streams: StreamCache,
    pub(crate) events: EventCache,
}

/// Gives a thread's entry back when it ends.
struct End;

impl Drop for End {
    fn drop(&mut self) {
        here(|here| {
            here.ends.set(true);
            if let Some(thread) = here.thread.take() {
                thread.inside.store(0, Ordering::Relaxed);
                thread.tid.store(0, Ordering::Release);
            }
        });
    }
}

thread_local! {
    /// It has nothing to drop, so that it is there until the very end of the thread, and costs
    /// little to find.
    static HERE: Here = const {
        Here {
            thread: Cell::new(None),
            ends: Cell::new(false),
            me: Cell::new(None),
            streams: StreamCache::new(),
            events: EventCache::new(),
        }
    };
    static END: End = const { End };
}

/// Runs `body` with what the calling thread keeps.
#[inline]
pub(crate) fn here<R>(body: impl FnOnce(&Here) -> R) -> R {
    HERE.with(body)
}

impl Here {
    /// The calling thread; `None` while it ends.
    #[inline]
    pub(crate) fn thread(&self) -> Option<&'static Thread> {
        self.thread.get().or_else(|| self.new_thread())
    }

    #[inline]
    pub(crate) fn me(&self) -> Me {
        self.me.get().unwrap_or_else(|| {
            let me = Me::get();
            self.me.set(Some(me));
            me
        })
    }

    #[cold]
    fn new_thread(&self) -> Option<&'static Thread> {
        if self.ends.get() || END.try_with(|_| ()).is_err() {
            return None;
        }
        self.thread.set(Some(new_thread()));
        self.thread.get()
    }
}

static THREADS_SEEN: OnceLock<Lock<Vec<&'static Thread>>> = OnceLock::new();

fn threads_seen() -> &'static Lock<Vec<&'static Thread>> {
    THREADS_SEEN.get_or_init(|| Lock::new(Vec::new()))
}

#[cold]
fn new_thread() -> &'static Thread {
    let mut threads = threads_seen().lock();
    let free = |thread: &&&'static Thread| thread.tid.load(Ordering::Acquire) == 0;
    let thread = match threads.iter().find(free) {
        Some(thread) => *thread,
        None => {
            let thread: &Thread = Box::leak(Box::default());
            threads.push(thread);
            thread
        }
    };
    thread.keeps_time.store(is_keeper(), Ordering::Relaxed);
    thread.tid.store(seen::tid(), Ordering::Release);
    thread
}

/// Whether the calling thread has the name of those that keep time, `Device::keep_time` of
/// fencepost.
fn is_keeper() -> bool {
    // The system's limit on names, with the byte that ends one.
    let mut name = [0_u8; 16];
    // SAFETY: it writes a name of at most so many bytes
    // (https://man7.org/linux/man-pages/man2/pr_get_name.2const.html)
    unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
    CStr::from_bytes_until_nul(&name).is_ok_and(|name| name.to_bytes() == TIME_KEEPER.as_bytes())
}

impl Thread {
    /// The thread begins to wait for the work that a stream has now; `None`: that all streams of
    /// the context have.
    pub(crate) fn awaits_stream(&self, here: &Here, context: usize, handle: Option<usize>) {
        let work_of = seen::work_of;
        let awaited = match handle {
            Some(handle) => seen::stream(&here.streams, context, handle)
                .into_iter()
                .map(work_of)
                .collect(),
            None => seen::streams()
                .into_iter()
                .filter(|entry| entry.0.lock().context == context)
                .map(work_of)
                .collect(),
        };
        *self.awaits.lock() = awaited;
    }

    /// The thread begins to wait for what an event holds now.
    pub(crate) fn awaits_event(&self, here: &Here, handle: usize) {
        let state = events::awaited(here.me(), &here.events, handle);
        let mut awaits = self.awaits.lock();
        awaits.clear();
        if let Some(EventState::Recorded(mark)) = state {
            awaits.push((mark.stream, mark.position));
        }
    }

    /// The wait is over, well or not.
    pub(crate) fn has_waited(&self, succeeded: bool) {
        let awaited = std::mem::take(&mut *self.awaits.lock());
        for (of, position) in awaited.into_iter().filter(|_| succeeded) {
            let mut inner = of.entry.0.lock();
            if inner.number == of.number {
                inner.complete = inner.complete.max(position);
            }
        }
    }
}

pub(crate) fn threads() -> Vec<&'static Thread> {
    threads_seen().lock().clone()
}

/// Whether a thread is in a call that records the event, so that what it holds is not known.
pub(crate) fn is_being_recorded(event: usize) -> bool {
    threads().iter().any(|thread| {
        let inside = calls::of(thread.inside.load(Ordering::Acquire));
        inside.is_some_and(|call| matches!(call.kind, Kind::Record | Kind::RecordContext))
            && thread.event.load(Ordering::Relaxed) == event
    })
}

/// Calls go by unseen, so nothing that was seen is true any more.
pub(crate) fn forget_all() {
    seen::lost(None);
    events::forget_all();
    seen::CAPTURES.store(0, Ordering::SeqCst);
    seen::RELEASES.store(0, Ordering::SeqCst);
    let vulkan = [calls::VULKAN, calls::VULKAN_WAIT];
    let in_vulkan = |thread: &&Thread| vulkan.contains(&thread.inside.load(Ordering::Relaxed));
    for thread in threads().into_iter().filter(|thread| !in_vulkan(thread)) {
        thread.inside.store(0, Ordering::Relaxed);
        thread.awaits.lock().clear();
    }
}
