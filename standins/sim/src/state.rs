//! The state behind the machine's lock.

use crate::clock::{mask, tick_at};
use crate::fault::Plan;
use crate::ledger::{Object, Use};
use crate::queue::{CompletedHandler, SharedView};
use crate::seed::Rng;
use crate::trace::{TraceEntry, TraceEvent};
use crate::{Command, Config, Error, Order, QueueId};
use std::any::Any;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

pub(crate) struct State {
    pub(crate) rng: Rng,
    pub(crate) now_ns: u64,
    pub(crate) max_step_ns: u64,
    /// When real time was last looked at, if the clock follows it.
    pub(crate) real_time: Option<Instant>,
    pub(crate) steps: u64,
    pub(crate) devices: Vec<DeviceState>,
    pub(crate) queues: BTreeMap<QueueId, QueueState>,
    /// The queues with pending batches: thousands may be idle.
    pub(crate) active: BTreeSet<QueueId>,
    pub(crate) notifications: VecDeque<Notification>,
    pub(crate) next_batch: u64,
    trace: VecDeque<TraceEntry>,
    trace_capacity: usize,
    /// Grows with everything that may let a waiter or a driver go on.
    pub(crate) changes: u64,
    pub(crate) sleeping_hosts: usize,
    pub(crate) sleeping_drivers: usize,
    /// Handlers that a stepping thread is in.
    pub(crate) calling: usize,
    /// What others own and the machine is done with. Dropped once the lock is released: a
    /// destructor may call back.
    pub(crate) trash: Vec<Box<dyn Any + Send>>,
}

pub(crate) struct DeviceState {
    pub(crate) config: Config,
    pub(crate) plan: Plan,
    pub(crate) lost: Option<String>,
    pub(crate) closed: bool,
    next_queue: usize,
}

pub(crate) struct QueueState {
    pub(crate) order: Order,
    pub(crate) channel: Option<usize>,
    /// How eager the whole queue is, on top of each batch.
    pub(crate) eagerness: u64,
    /// Accepted, not started; in order of submission.
    pub(crate) waiting: VecDeque<BatchState>,
    /// Started; in order of submission.
    pub(crate) in_flight: Vec<BatchState>,
    /// All commands done, or failed; the host has not been told.
    pub(crate) unreported: Vec<BatchState>,
    pub(crate) error: Option<String>,
    pub(crate) hung: bool,
    /// Its last handle is gone.
    pub(crate) orphan: bool,
}

pub(crate) struct BatchState {
    pub(crate) id: u64,
    pub(crate) commands: VecDeque<Command>,
    pub(crate) at: usize,
    /// Its present command is running on a stepping thread.
    pub(crate) busy: bool,
    /// Its next command may run; set at the beginning of each step.
    pub(crate) ready: bool,
    pub(crate) eagerness: u64,
    pub(crate) report_eagerness: u64,
    pub(crate) fail_at: Option<usize>,
    pub(crate) error: Option<String>,
    pub(crate) start: Option<u64>,
    pub(crate) end: u64,
    pub(crate) view: SharedView,
    pub(crate) scheduled: Vec<Notification>,
    pub(crate) completed: Vec<(CompletedHandler, Arc<Object>)>,
    pub(crate) uses: Vec<Use>,
}

pub(crate) struct Notification {
    pub(crate) of: u64,
    pub(crate) handler: &'static str,
    pub(crate) device: usize,
    pub(crate) eagerness: u64,
    /// The batch that is told when it was called.
    pub(crate) report: Option<SharedView>,
    pub(crate) call: Box<dyn FnOnce() + Send>,
}

impl QueueState {
    pub(crate) fn pending(&self) -> usize {
        self.waiting.len() + self.in_flight.len() + self.unreported.len()
    }

    /// The batch that was submitted first among those not reported.
    pub(crate) fn oldest(&self) -> Option<u64> {
        let first = |batches: &[BatchState]| batches.iter().map(|batch| batch.id).min();
        let waiting = self.waiting.front().map(|batch| batch.id);
        [first(&self.in_flight), first(&self.unreported), waiting]
            .into_iter()
            .flatten()
            .min()
    }
}

impl BatchState {
    /// Whether a fault strikes before the present command.
    pub(crate) fn fault_is_due(&self) -> bool {
        self.fail_at.is_some_and(|at| at <= self.at)
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
            notifications: VecDeque::new(),
            next_batch: 0,
            trace: VecDeque::new(),
            trace_capacity: config.trace_capacity,
            changes: 0,
            sleeping_hosts: 0,
            sleeping_drivers: 0,
            calling: 0,
            trash: Vec::new(),
        }
    }

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

    pub(crate) fn notify(&mut self, notification: Notification) {
        self.notifications.push_back(notification);
        self.touch();
    }

    pub(crate) fn add_device(&mut self, config: Config) -> usize {
        self.devices.push(DeviceState {
            config,
            plan: Plan::default(),
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
            eagerness: self.rng.eagerness(),
            waiting: VecDeque::new(),
            in_flight: Vec::new(),
            unreported: Vec::new(),
            error: None,
            hung: false,
            orphan: false,
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

    /// A queue is only forgotten once its handles are gone, or its device is.
    pub(crate) fn queue(&self, id: QueueId) -> Result<&QueueState, Error> {
        self.queues.get(&id).ok_or(Error::DeviceClosed)
    }

    pub(crate) fn queues_with_work(&self) -> impl Iterator<Item = &QueueState> {
        self.active.iter().filter_map(|id| self.queues.get(id))
    }

    pub(crate) fn tick(&self, device: usize) -> u64 {
        self.devices.get(device).map_or(0, |device| {
            tick_at(&device.config, self.now_ns) & mask(device.config.valid_bits)
        })
    }

    pub(crate) fn room(&self, id: QueueId) -> Result<bool, Error> {
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
