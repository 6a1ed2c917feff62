//! The state that the machine's lock protects.

use crate::batch::BatchState;
use crate::clock::{mask, tick_at};
use crate::fault::FaultPlan;
use crate::handler::HandlerCall;
use crate::seed::Rng;
use crate::timeline::Timeline;
use crate::trace::{TraceEntry, TraceEvent};
use crate::{Config, Error, Order, QueueId};
use std::any::Any;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

pub(crate) struct State {
    pub(crate) rng: Rng,
    pub(crate) now_ns: u64,
    pub(crate) max_step_ns: u64,
    /// When real time was last read, if the clock follows it.
    pub(crate) real_time: Option<Instant>,
    pub(crate) steps: u64,
    pub(crate) devices: Vec<DeviceState>,
    pub(crate) queues: BTreeMap<QueueId, QueueState>,
    /// The queues with pending batches. A machine may have thousands of idle ones, which a step
    /// need not look at.
    pub(crate) active: BTreeSet<QueueId>,
    /// The handlers that are due.
    pub(crate) handler_calls: VecDeque<HandlerCall>,
    pub(crate) next_batch: u64,
    trace: VecDeque<TraceEntry>,
    trace_capacity: usize,
    /// Incremented by every change that may end a wait or enable a step.
    pub(crate) changes: u64,
    pub(crate) sleeping_hosts: usize,
    pub(crate) sleeping_steppers: usize,
    /// How many handlers are running on stepping threads.
    pub(crate) running_handlers: usize,
    /// Callers' values that the machine no longer needs. They are dropped once the lock is
    /// released, since a destructor may call the machine.
    pub(crate) deferred_drops: Vec<Box<dyn Any + Send>>,
}

pub(crate) struct DeviceState {
    pub(crate) config: Config,
    pub(crate) faults: FaultPlan,
    pub(crate) lost: Option<String>,
    pub(crate) closed: bool,
    next_queue: usize,
}

pub(crate) struct QueueState {
    pub(crate) order: Order,
    pub(crate) channel: Option<usize>,
    /// Multiplied with the weight of each of its batches.
    pub(crate) weight: u64,
    /// Accepted and not started, in order of submission.
    pub(crate) waiting: VecDeque<BatchState>,
    /// Started, in order of submission.
    pub(crate) in_flight: Vec<BatchState>,
    /// Complete or failed, and not reported to the host.
    pub(crate) unreported: Vec<BatchState>,
    pub(crate) error: Option<String>,
    pub(crate) paused: bool,
    /// Whether its last handle was dropped.
    pub(crate) handle_dropped: bool,
}

impl QueueState {
    pub(crate) fn pending(&self) -> usize {
        self.waiting.len() + self.in_flight.len() + self.unreported.len()
    }

    /// The first submitted batch that is not reported.
    pub(crate) fn oldest(&self) -> Option<u64> {
        let first = |batches: &[BatchState]| batches.iter().map(|batch| batch.id).min();
        let waiting = self.waiting.front().map(|batch| batch.id);
        [first(&self.in_flight), first(&self.unreported), waiting]
            .into_iter()
            .flatten()
            .min()
    }
}

impl State {
    pub(crate) fn new(config: &Config) -> State {
        State {
            rng: Rng::new(config.seed),
            now_ns: 0,
            max_step_ns: config.max_step_ns,
            real_time: config.follows_real_time.then(Instant::now),
            steps: 0,
            devices: Vec::new(),
            queues: BTreeMap::new(),
            active: BTreeSet::new(),
            handler_calls: VecDeque::new(),
            next_batch: 0,
            trace: VecDeque::new(),
            trace_capacity: config.trace_capacity,
            changes: 0,
            sleeping_hosts: 0,
            sleeping_steppers: 0,
            running_handlers: 0,
            deferred_drops: Vec::new(),
        }
    }

    /// Records that something changed, which wakes sleeping threads once the lock is released.
    pub(crate) fn touch(&mut self) {
        self.changes = self.changes.wrapping_add(1);
    }

    pub(crate) fn log(&mut self, event: TraceEvent) {
        if self.trace_capacity == 0 {
            return;
        }
        if self.trace.len() == self.trace_capacity {
            self.trace.pop_front();
        }
        self.trace.push_back(TraceEntry {
            step: self.steps,
            time_ns: self.now_ns,
            event,
        });
    }

    pub(crate) fn trace(&self) -> Vec<TraceEntry> {
        self.trace.iter().cloned().collect()
    }

    pub(crate) fn queue_handler(&mut self, call: HandlerCall) {
        self.handler_calls.push_back(call);
        self.touch();
    }

    pub(crate) fn queue_due_handlers(&mut self, timeline: &Timeline) {
        for call in timeline.due_handlers() {
            self.queue_handler(call);
        }
    }

    /// Signals a semaphore, from the device or the host.
    pub(crate) fn signal(&mut self, timeline: &Timeline, value: u64) {
        if timeline.raise(value) {
            self.touch();
            self.queue_due_handlers(timeline);
        }
    }

    pub(crate) fn add_device(&mut self, config: Config) -> usize {
        self.devices.push(DeviceState {
            config,
            faults: FaultPlan::default(),
            lost: None,
            closed: false,
            next_queue: 0,
        });
        self.devices.len() - 1
    }

    pub(crate) fn add_queue(
        &mut self,
        device: usize,
        order: Option<Order>,
    ) -> Result<QueueId, Error> {
        let state = self.devices.get_mut(device).ok_or(Error::DeviceClosed)?;
        let index = state.next_queue;
        state.next_queue += 1;
        let queue = QueueState {
            order: order.unwrap_or(state.config.order),
            channel: state.config.channels.map(|channels| index % channels),
            weight: self.rng.weight(),
            waiting: VecDeque::new(),
            in_flight: Vec::new(),
            unreported: Vec::new(),
            error: None,
            paused: false,
            handle_dropped: false,
        };
        let id = QueueId { device, index };
        self.queues.insert(id, queue);
        Ok(id)
    }

    pub(crate) fn device_error(&self, device: usize) -> Option<Error> {
        match self.devices.get(device) {
            Some(state) if !state.closed => state.lost.clone().map(Error::DeviceLost),
            _ => Some(Error::DeviceClosed),
        }
    }

    /// A queue is removed only after its last handle is dropped or its device is closed. A caller
    /// has a handle, so a missing queue means a closed device.
    pub(crate) fn queue(&self, id: QueueId) -> Result<&QueueState, Error> {
        self.queues.get(&id).ok_or(Error::DeviceClosed)
    }

    pub(crate) fn queues_with_work(&self) -> impl Iterator<Item = &QueueState> {
        self.active.iter().filter_map(|id| self.queues.get(id))
    }

    /// Advances a clock that follows real time to now. So what the clock says never lags behind
    /// what the host has seen, and runs ahead of it only where a caller advanced it.
    pub(crate) fn follow_real_time(&mut self) {
        if let Some(last) = &mut self.real_time {
            let now = Instant::now();
            let passed = now.duration_since(std::mem::replace(last, now));
            let passed = u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX);
            self.now_ns = self.now_ns.saturating_add(passed);
        }
    }

    pub(crate) fn tick(&self, device: usize) -> u64 {
        self.devices.get(device).map_or(0, |device| {
            tick_at(&device.config, self.now_ns) & mask(device.config.valid_bits)
        })
    }

    /// Whether the queue accepts another batch now.
    pub(crate) fn has_room(&self, id: QueueId) -> Result<bool, Error> {
        if let Some(error) = self.device_error(id.device) {
            return Err(error);
        }
        let queue = self.queue(id)?;
        if let Some(why) = &queue.error {
            return Err(Error::QueueFailed(why.clone()));
        }
        let most = self
            .devices
            .get(id.device)
            .and_then(|device| device.config.max_pending);
        Ok(most.is_none_or(|most| queue.pending() < most))
    }
}
