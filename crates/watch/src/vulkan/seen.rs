//! What was seen of the program's queues, semaphores, fences and threads.
//!
//! **Batches.** A queue's work is counted in batches: an element of a submit or of a sparse binding
//! is one, and so is a fence that is submitted alone. A queue completes its batches in their order,
//! as far as a fence or a timeline semaphore can tell: what these signal is behind all that was
//! submitted to the queue before. So one number says how far a queue has come.
//!
//! **All of it is bounded.** A queue keeps its last [`BATCHES`] batches; where an older one may be
//! pending, that is said. Of each queue, semaphore, fence and swapchain that is alive there is one
//! entry, and of the last [`DESTROYED`] semaphores that were destroyed.

use std::{
    collections::{BTreeMap, VecDeque},
    ffi::c_char,
};

use crate::{lock::Lock, seen::now};

/// How many batches a queue keeps.
const BATCHES: usize = 1024;
/// After so many further submits a full queue is looked at again: each time, all queues are.
const SETTLES_EACH: u64 = 128;
/// How many destroyed semaphores are kept, since batches may wait for them.
const DESTROYED: usize = 64;
/// How much of a name is kept.
const NAME: usize = 64;

/// Where a binary semaphore's signal comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// None was submitted since the last wait.
    Nothing,
    Batch {
        queue: u64,
        position: u64,
    },
    /// The presentation engine, asked by `vkAcquireNextImageKHR`.
    Acquire,
    /// It was imported.
    Unseen,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Until {
    Value(u64),
    Signal(Source),
}

/// What a batch waits for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wait {
    pub(crate) semaphore: u64,
    pub(crate) until: Until,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Nothing,
    Submit,
    SparseBinding,
    Fence,
    Present,
}

#[derive(Clone, Debug)]
pub(crate) struct Batch {
    pub(crate) position: u64,
    pub(crate) waits: Vec<Wait>,
    /// Timeline semaphores, and the values that they get.
    pub(crate) signals: Vec<(u64, u64)>,
    /// The system's time in milliseconds.
    pub(crate) at: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Queue {
    pub(crate) number: u64,
    pub(crate) device: u64,
    pub(crate) handle: u64,
    pub(crate) family: u32,
    pub(crate) name: Option<String>,
    /// How many batches were submitted.
    pub(crate) submitted: u64,
    /// Everything up to here is known to be complete.
    pub(crate) complete: u64,
    pub(crate) batches: VecDeque<Batch>,
    /// The position of the last batch that is not kept although it was not known to be complete.
    lost: u64,
    /// From so many submits on, it is looked at again if it is full.
    settles_at: u64,
    pub(crate) last: (Kind, u64),
}

#[derive(Clone, Debug)]
pub(crate) struct Semaphore {
    pub(crate) number: u64,
    pub(crate) device: u64,
    pub(crate) handle: u64,
    pub(crate) name: Option<String>,
    pub(crate) is_timeline: bool,
    /// Whether another process or interface may signal it.
    pub(crate) is_shared: bool,
    pub(crate) is_destroyed: bool,
    /// The highest value that a timeline semaphore is known to have had.
    pub(crate) value: u64,
    signal: Source,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FenceState {
    NeverSubmitted,
    Reset,
    Submitted { queue: u64, position: u64 },
    Signalled,
    Acquire,
    Unseen,
}

#[derive(Clone, Debug)]
pub(crate) struct Fence {
    pub(crate) number: u64,
    pub(crate) device: u64,
    pub(crate) handle: u64,
    pub(crate) name: Option<String>,
    /// Whether another process or interface has it too, and may reset or signal it.
    pub(crate) is_shared: bool,
    pub(crate) state: FenceState,
}

#[derive(Clone, Debug)]
pub(crate) struct Device {
    pub(crate) model: String,
    pub(crate) is_lost: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Swapchain {
    device: u64,
    pub(crate) name: Option<String>,
    /// The highest id that one of its images was presented with.
    pub(crate) presented: u64,
}

/// What a thread waits for in a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Awaited {
    Queue(u64),
    Device(u64),
    /// Semaphores and values, and whether one of them is enough.
    Values(Vec<(u64, u64)>, bool),
    Fences(Vec<u64>, bool),
    /// An image of this swapchain.
    Image(u64),
    /// That an image of this swapchain was presented that has this id, or a higher one.
    Present(u64, u64),
}

/// All of it, by numbers that no two objects of a kind share.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) devices: BTreeMap<u64, Device>,
    pub(crate) queues: BTreeMap<u64, Queue>,
    pub(crate) semaphores: BTreeMap<u64, Semaphore>,
    pub(crate) fences: BTreeMap<u64, Fence>,
    pub(crate) swapchains: BTreeMap<u64, Swapchain>,
    /// By the thread's number.
    pub(crate) threads: BTreeMap<i32, Awaited>,
}

/// A kind of object that has numbers of its own.
#[derive(Clone, Copy)]
#[repr(usize)]
enum Numbered {
    Device,
    Queue,
    Semaphore,
    Fence,
    Swapchain,
}

/// The state, and how its objects are found by their handles. A handle is the device's own.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) state: State,
    numbers: [u64; 5],
    queues: BTreeMap<u64, u64>,
    semaphores: BTreeMap<(u64, u64), u64>,
    fences: BTreeMap<(u64, u64), u64>,
    swapchains: BTreeMap<(u64, u64), u64>,
    destroyed: VecDeque<u64>,
}

pub(crate) static SEEN: Lock<Seen> = Lock::new(Seen::new());

impl Queue {
    /// Whether a batch may be pending that is not kept.
    pub(crate) fn lacks_batches(&self) -> bool {
        self.lost > self.complete
    }

    pub(crate) fn pending(&self) -> impl Iterator<Item = &Batch> {
        let complete = self.complete;
        let pending = move |batch: &&Batch| batch.position > complete;
        self.batches.iter().filter(pending)
    }

    fn completes(&mut self, position: u64) {
        self.complete = self.complete.max(position.min(self.submitted));
    }

    fn push(&mut self, kind: Kind, waits: Vec<Wait>) -> u64 {
        if self.batches.len() == BATCHES
            && let Some(oldest) = self.batches.pop_front()
            && oldest.position > self.complete
        {
            self.lost = oldest.position;
        }
        self.submitted += 1;
        self.last = (kind, now());
        self.batches.push_back(Batch {
            position: self.submitted,
            waits,
            signals: Vec::new(),
            at: self.last.1,
        });
        self.submitted
    }
}

impl State {
    pub(crate) const fn new() -> State {
        State {
            devices: BTreeMap::new(),
            queues: BTreeMap::new(),
            semaphores: BTreeMap::new(),
            fences: BTreeMap::new(),
            swapchains: BTreeMap::new(),
            threads: BTreeMap::new(),
        }
    }

    /// The semaphore was seen to have this value.
    pub(crate) fn reached(&mut self, semaphore: u64, value: u64) {
        if let Some(semaphore) = self.semaphores.get_mut(&semaphore) {
            semaphore.value = semaphore.value.max(value);
        }
    }

    /// Whether a timeline semaphore is known to have reached a value.
    pub(crate) fn has_reached(&self, semaphore: u64, value: u64) -> bool {
        let semaphore = self.semaphores.get(&semaphore);
        semaphore.is_some_and(|semaphore| semaphore.is_timeline && semaphore.value >= value)
    }

    /// The fence was seen to be signalled.
    pub(crate) fn signalled(&mut self, fence: u64) {
        let Some(fence) = self.fences.get_mut(&fence) else {
            return;
        };
        if let FenceState::Submitted { queue, position } = fence.state
            && let Some(queue) = self.queues.get_mut(&queue)
        {
            queue.completes(position);
        }
        fence.state = FenceState::Signalled;
    }

    /// Derives what is complete: a batch, if a later one of its queue is, if a value that
    /// it signals was reached, and if a complete batch has waited for its binary semaphore. A value
    /// was reached if a complete batch has waited for it. What is complete is dropped.
    pub(crate) fn settle(&mut self) {
        let numbers: Vec<u64> = self.queues.keys().copied().collect();
        let mut again = true;
        while std::mem::take(&mut again) {
            for number in &numbers {
                for wait in self.settle_queue(*number) {
                    again |= self.is_over(wait);
                }
            }
        }
    }

    /// A complete batch has had this wait. Returns whether that tells something new.
    fn is_over(&mut self, wait: Wait) -> bool {
        match wait.until {
            Until::Value(value) => {
                let is_new = !self.has_reached(wait.semaphore, value);
                self.reached(wait.semaphore, value);
                is_new
            }
            Until::Signal(Source::Batch { queue, position }) => {
                let queue = self.queues.get_mut(&queue);
                queue.is_some_and(|queue| {
                    let before = queue.complete;
                    queue.completes(position);
                    queue.complete > before
                })
            }
            Until::Signal(_) => false,
        }
    }

    /// Drops the batches of a queue that are complete. Returns what they have waited for.
    fn settle_queue(&mut self, number: u64) -> Vec<Wait> {
        let Some(queue) = self.queues.get(&number) else {
            return Vec::new();
        };
        let told = queue.pending().filter(|batch| {
            let mut signals = batch.signals.iter();
            signals.any(|&(semaphore, value)| self.has_reached(semaphore, value))
        });
        let told = told.last().map_or(0, |batch| batch.position);
        let Some(queue) = self.queues.get_mut(&number) else {
            return Vec::new();
        };
        queue.completes(told);
        let mut waits = Vec::new();
        while let Some(batch) = queue.batches.front()
            && batch.position <= queue.complete
        {
            waits.extend_from_slice(&batch.waits);
            queue.batches.pop_front();
        }
        waits
    }
}

impl Seen {
    pub(crate) const fn new() -> Seen {
        Seen {
            state: State::new(),
            numbers: [0; 5],
            queues: BTreeMap::new(),
            semaphores: BTreeMap::new(),
            fences: BTreeMap::new(),
            swapchains: BTreeMap::new(),
            destroyed: VecDeque::new(),
        }
    }

    fn next(&mut self, kind: Numbered) -> u64 {
        let number = &mut self.numbers[kind as usize];
        *number += 1;
        *number
    }

    /// Returns the device's number.
    pub(crate) fn created_device(&mut self, model: String) -> u64 {
        let number = self.next(Numbered::Device);
        let is_lost = false;
        self.state.devices.insert(number, Device { model, is_lost });
        number
    }

    /// Nothing of the device is there any more.
    pub(crate) fn destroyed_device(&mut self, device: u64) {
        let state = &mut self.state;
        state.devices.remove(&device);
        state.queues.retain(|_, queue| queue.device != device);
        state.semaphores.retain(|_, of| of.device != device);
        state.fences.retain(|_, fence| fence.device != device);
        state.swapchains.retain(|_, of| of.device != device);
        self.semaphores.retain(|&(of, _), _| of != device);
        self.fences.retain(|&(of, _), _| of != device);
        self.swapchains.retain(|&(of, _), _| of != device);
        let queues = &state.queues;
        self.queues.retain(|_, number| queues.contains_key(number));
    }

    pub(crate) fn lost_device(&mut self, device: u64) {
        if let Some(device) = self.state.devices.get_mut(&device) {
            device.is_lost = true;
        }
    }

    pub(crate) fn got_queue(&mut self, device: u64, handle: u64, family: u32) {
        if handle == 0 || self.queues.contains_key(&handle) {
            return;
        }
        let number = self.next(Numbered::Queue);
        self.queues.insert(handle, number);
        let queue = Queue {
            number,
            device,
            handle,
            family,
            name: None,
            submitted: 0,
            complete: 0,
            batches: VecDeque::new(),
            lost: 0,
            settles_at: 0,
            last: (Kind::Nothing, now()),
        };
        self.state.queues.insert(number, queue);
    }

    pub(crate) fn queue(&self, handle: u64) -> Option<u64> {
        self.queues.get(&handle).copied()
    }

    /// `value`: of a timeline semaphore, its first value.
    pub(crate) fn created_semaphore(
        &mut self,
        device: u64,
        handle: u64,
        value: Option<u64>,
        is_shared: bool,
    ) {
        let number = self.next(Numbered::Semaphore);
        let semaphore = Semaphore {
            number,
            device,
            handle,
            name: None,
            is_timeline: value.is_some(),
            is_shared,
            is_destroyed: false,
            value: value.unwrap_or(0),
            signal: Source::Nothing,
        };
        let before = self.semaphores.insert((device, handle), number);
        before.map(|before| self.state.semaphores.remove(&before));
        self.state.semaphores.insert(number, semaphore);
    }

    pub(crate) fn semaphore(&self, device: u64, handle: u64) -> Option<u64> {
        self.semaphores.get(&(device, handle)).copied()
    }

    pub(crate) fn destroyed_semaphore(&mut self, device: u64, handle: u64) {
        let Some(number) = self.semaphores.remove(&(device, handle)) else {
            return;
        };
        if let Some(semaphore) = self.state.semaphores.get_mut(&number) {
            semaphore.is_destroyed = true;
        }
        self.destroyed.push_back(number);
        if self.destroyed.len() > DESTROYED
            && let Some(oldest) = self.destroyed.pop_front()
        {
            self.state.semaphores.remove(&oldest);
        }
    }

    /// A binary semaphore will be signalled so.
    pub(crate) fn will_signal(&mut self, semaphore: Option<u64>, source: Source) {
        let semaphores = &mut self.state.semaphores;
        if let Some(semaphore) = semaphore.and_then(|number| semaphores.get_mut(&number)) {
            semaphore.signal = source;
        }
    }

    pub(crate) fn imported_semaphore(&mut self, device: u64, handle: u64) {
        let number = self.semaphore(device, handle);
        self.will_signal(number, Source::Unseen);
        let semaphores = &mut self.state.semaphores;
        if let Some(semaphore) = number.and_then(|number| semaphores.get_mut(&number)) {
            semaphore.is_shared = true;
        }
    }

    /// A wait for a semaphore is submitted: for a value, or for a binary one's signal, which it
    /// takes. `None` where the semaphore is not known.
    pub(crate) fn wait(&mut self, device: u64, handle: u64, value: u64) -> Option<Wait> {
        let number = self.semaphore(device, handle)?;
        let semaphore = self.state.semaphores.get_mut(&number)?;
        let until = match (semaphore.is_timeline, semaphore.signal) {
            (true, _) => Until::Value(value),
            (false, signal) => {
                semaphore.signal = Source::Nothing;
                // What is shared may have been signalled elsewhere since.
                let is_over = match signal {
                    Source::Nothing => true,
                    Source::Batch { queue, position } => {
                        let queue = self.state.queues.get(&queue);
                        queue.is_none_or(|queue| position <= queue.complete)
                    }
                    Source::Acquire | Source::Unseen => false,
                };
                Until::Signal(match semaphore.is_shared && is_over {
                    true => Source::Unseen,
                    false => signal,
                })
            }
        };
        Some(Wait {
            semaphore: number,
            until,
        })
    }

    /// A batch was submitted. Returns its position.
    pub(crate) fn submit(&mut self, queue: u64, kind: Kind, waits: Vec<Wait>) -> u64 {
        if let Some(of) = self.state.queues.get_mut(&queue)
            && of.batches.len() == BATCHES
            && of.submitted >= of.settles_at
        {
            of.settles_at = of.submitted + SETTLES_EACH;
            self.state.settle();
        }
        let queue = self.state.queues.get_mut(&queue);
        queue.map_or(0, |queue| queue.push(kind, waits))
    }

    /// The last batch of the queue signals a semaphore.
    pub(crate) fn signal(&mut self, queue: u64, device: u64, handle: u64, value: u64) {
        let Some(semaphore) = self.semaphore(device, handle) else {
            return;
        };
        let state = &mut self.state;
        let Some(of) = state.queues.get_mut(&queue) else {
            return;
        };
        let Some(semaphore) = state.semaphores.get_mut(&semaphore) else {
            return;
        };
        if !semaphore.is_timeline {
            let position = of.submitted;
            semaphore.signal = Source::Batch { queue, position };
        } else if let Some(batch) = of.batches.back_mut() {
            batch.signals.push((semaphore.number, value));
        }
    }

    /// A submit to a queue that had `before` batches has failed: it has changed nothing.
    pub(crate) fn take_back(&mut self, queue: u64, before: u64) {
        let state = &mut self.state;
        let Some(of) = state.queues.get_mut(&queue) else {
            return;
        };
        let mut waits = Vec::new();
        let kept = of.batches.partition_point(|batch| batch.position <= before);
        for batch in of.batches.drain(kept..) {
            waits.extend(batch.waits);
        }
        of.submitted = before;
        of.complete = of.complete.min(before);
        for semaphore in state.semaphores.values_mut() {
            if let Source::Batch {
                queue: by,
                position,
            } = semaphore.signal
                && by == queue
                && position > before
            {
                semaphore.signal = Source::Nothing;
            }
        }
        for wait in waits {
            if let Until::Signal(source) = wait.until {
                self.will_signal(Some(wait.semaphore), source);
            }
        }
    }

    /// What was submitted to the queue last signals a fence.
    pub(crate) fn submit_fence(&mut self, queue: u64, device: u64, handle: u64) {
        let position = self.state.queues.get(&queue).map(|queue| queue.submitted);
        if let Some(position) = position {
            self.set_fence(device, handle, FenceState::Submitted { queue, position });
        }
    }

    pub(crate) fn created_fence(&mut self, device: u64, handle: u64, is_signalled: bool) {
        let number = self.next(Numbered::Fence);
        let fence = Fence {
            number,
            device,
            handle,
            name: None,
            is_shared: false,
            state: match is_signalled {
                true => FenceState::Signalled,
                false => FenceState::NeverSubmitted,
            },
        };
        let before = self.fences.insert((device, handle), number);
        before.map(|before| self.state.fences.remove(&before));
        self.state.fences.insert(number, fence);
    }

    pub(crate) fn fence(&self, device: u64, handle: u64) -> Option<u64> {
        self.fences.get(&(device, handle)).copied()
    }

    pub(crate) fn set_fence(&mut self, device: u64, handle: u64, state: FenceState) {
        let Some(number) = self.fence(device, handle) else {
            return;
        };
        if let Some(fence) = self.state.fences.get_mut(&number) {
            fence.state = state;
        }
        if state == FenceState::Reset {
            // Who waits for it from now on does not go on with a wait from before.
            let names = |awaited: &Awaited| match awaited {
                Awaited::Fences(fences, _) => fences.contains(&number),
                _ => false,
            };
            self.state.threads.retain(|_, awaited| !names(awaited));
        }
    }

    /// From now on, others have the fence too.
    pub(crate) fn shared_fence(&mut self, device: u64, handle: u64) {
        let fences = &mut self.state.fences;
        let number = self.fences.get(&(device, handle));
        if let Some(fence) = number.and_then(|number| fences.get_mut(number)) {
            fence.is_shared = true;
        }
    }

    pub(crate) fn destroyed_fence(&mut self, device: u64, handle: u64) {
        if let Some(number) = self.fences.remove(&(device, handle)) {
            self.state.fences.remove(&number);
        }
    }

    /// All that was submitted to the queue up to a position is complete.
    pub(crate) fn completed(&mut self, queue: u64, position: u64) {
        if let Some(queue) = self.state.queues.get_mut(&queue) {
            queue.completes(position);
        }
        self.state.settle();
    }

    pub(crate) fn created_swapchain(&mut self, device: u64, handle: u64) {
        let number = self.next(Numbered::Swapchain);
        let swapchain = Swapchain {
            device,
            name: None,
            presented: 0,
        };
        let before = self.swapchains.insert((device, handle), number);
        before.map(|before| self.state.swapchains.remove(&before));
        self.state.swapchains.insert(number, swapchain);
    }

    pub(crate) fn swapchain(&self, device: u64, handle: u64) -> Option<u64> {
        self.swapchains.get(&(device, handle)).copied()
    }

    pub(crate) fn destroyed_swapchain(&mut self, device: u64, handle: u64) {
        if let Some(number) = self.swapchains.remove(&(device, handle)) {
            self.state.swapchains.remove(&number);
        }
    }

    fn swapchain_mut(&mut self, device: u64, handle: u64) -> Option<&mut Swapchain> {
        let number = self.swapchain(device, handle)?;
        self.state.swapchains.get_mut(&number)
    }

    /// An image of the swapchain was presented with an id.
    pub(crate) fn presented_as(&mut self, device: u64, handle: u64, id: u64) {
        if let Some(swapchain) = self.swapchain_mut(device, handle) {
            swapchain.presented = swapchain.presented.max(id);
        }
    }

    pub(crate) fn name_swapchain(&mut self, device: u64, handle: u64, name: Option<String>) {
        if let Some(swapchain) = self.swapchain_mut(device, handle) {
            swapchain.name = name;
        }
    }

    /// The queue was given an image to present.
    pub(crate) fn presented(&mut self, handle: u64) {
        let number = self.queue(handle);
        if let Some(queue) = number.and_then(|number| self.state.queues.get_mut(&number)) {
            queue.last = (Kind::Present, now());
        }
    }

    /// The names that the program gives to its objects.
    pub(crate) fn name_queue(&mut self, handle: u64, name: Option<String>) {
        let number = self.queue(handle);
        if let Some(queue) = number.and_then(|number| self.state.queues.get_mut(&number)) {
            queue.name = name;
        }
    }

    pub(crate) fn name_semaphore(&mut self, device: u64, handle: u64, name: Option<String>) {
        let number = self.semaphore(device, handle);
        let semaphores = &mut self.state.semaphores;
        if let Some(semaphore) = number.and_then(|number| semaphores.get_mut(&number)) {
            semaphore.name = name;
        }
    }

    pub(crate) fn name_fence(&mut self, device: u64, handle: u64, name: Option<String>) {
        let number = self.fence(device, handle);
        if let Some(fence) = number.and_then(|number| self.state.fences.get_mut(&number)) {
            fence.name = name;
        }
    }
}

/// A name in words; `None` for an empty one.
///
/// # Safety
/// The pointer is null or to a C string.
pub(crate) unsafe fn name(text: *const c_char) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: the caller vouches for it
    let text = unsafe { std::ffi::CStr::from_ptr(text) }.to_string_lossy();
    let name: String = text
        .chars()
        .filter(|c| !c.is_control())
        .take(NAME)
        .collect();
    (!name.is_empty()).then_some(name)
}
