//! The scheduler: which of the permitted things happens next.

use crate::ledger::Violation;
use crate::machine::Machine;
use crate::queue::view;
use crate::state::{BatchState, Notification, QueueState, State};
use crate::trace::TraceEvent;
use crate::{Command, Order, QueueId};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

/// Something that may happen next.
#[derive(Clone, Copy)]
enum Choice {
    Start(QueueId),
    Run(QueueId, u64),
    Report(QueueId, u64),
    Notify(usize),
}

/// What is left of a step to do without the lock.
enum Todo {
    Nothing,
    Work {
        queue: QueueId,
        batch: u64,
        work: Box<dyn FnOnce() + Send>,
    },
    Call(Notification),
}

/// Of the undelivered handlers only so many are in the draw: enough to upset any order, and a step
/// stays cheap while thousands are pending.
const HANDLER_WINDOW: usize = 32;

/// Work is weighed by its queue's eagerness as well as its own; this puts handlers on the same
/// scale.
const HANDLER_SCALE: u64 = 16;

impl Machine {
    /// One step; false when nothing may happen.
    pub(crate) fn step(&self) -> bool {
        match self.with(State::pick) {
            None => return false,
            Some(Todo::Nothing) => {}
            Some(Todo::Work { queue, batch, work }) => {
                let result = catch_unwind(AssertUnwindSafe(work));
                self.with(|state| match result {
                    Ok(()) => state.advance(queue, batch),
                    Err(panic) => {
                        let why = format!("work panicked: {}", text_of(&*panic));
                        state.fail(queue, batch, why);
                        state.trash.push(Box::new(panic));
                    }
                });
            }
            Some(Todo::Call(Notification { report, call, .. })) => {
                if let Err(panic) = catch_unwind(AssertUnwindSafe(call)) {
                    self.ledger.report(Violation::HandlerPanicked {
                        text: text_of(&*panic),
                    });
                }
                self.with(|state| {
                    state.calling -= 1;
                    if let Some(shared) = report {
                        let mut view = view(&shared);
                        view.handlers_left = view.handlers_left.saturating_sub(1);
                    }
                    state.touch();
                });
            }
        }
        true
    }
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no text").into()
}

impl State {
    fn pick(&mut self) -> Option<Todo> {
        let choices = self.choices();
        let total: u64 = choices.iter().map(|(weight, _)| weight).sum();
        if total == 0 {
            return None;
        }
        self.steps += 1;
        self.now_ns += self.duration();
        self.touch();
        let due: Vec<usize> = (0..self.devices.len())
            .filter(|&device| self.devices[device].plan.step())
            .collect();
        if !due.is_empty() {
            for device in due {
                self.lose(device, "a fault".into());
            }
            return Some(Todo::Nothing);
        }
        let mut draw = self.rng.below(total);
        let choice = choices.into_iter().find_map(|(weight, choice)| {
            let hit = draw < weight;
            draw = draw.saturating_sub(weight);
            hit.then_some(choice)
        })?;
        Some(self.apply(choice))
    }

    /// How long the step takes: often nothing, so that timestamps tie; sometimes very long.
    fn duration(&mut self) -> u64 {
        let real = self.real_time.as_mut().map_or(0, |last| {
            let now = Instant::now();
            let passed = now.duration_since(std::mem::replace(last, now));
            u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX)
        });
        let common = self.rng.below(self.max_step_ns.saturating_add(1));
        let simulated = match self.rng.below(64) {
            0..16 => 0,
            63 => common.saturating_mul(1000),
            _ => common,
        };
        simulated.saturating_add(real)
    }

    fn choices(&mut self) -> Vec<(u64, Choice)> {
        for id in &self.active {
            let Some(queue) = self.queues.get_mut(id) else {
                continue;
            };
            let after_all_earlier = queue.order == Order::OrderedSignals;
            for (place, batch) in queue.in_flight.iter_mut().enumerate() {
                batch.ready = !batch.busy && may_run(batch, place == 0 || !after_all_earlier);
            }
        }
        let mut choices = Vec::new();
        for (&id, queue) in self
            .active
            .iter()
            .filter_map(|id| self.queues.get_key_value(id))
        {
            if queue.hung {
                continue;
            }
            let in_any_order = queue.order == Order::Overlapping;
            let oldest = queue.oldest();
            for batch in &queue.unreported {
                if in_any_order || oldest == Some(batch.id) {
                    choices.push((
                        queue.eagerness * batch.report_eagerness,
                        Choice::Report(id, batch.id),
                    ));
                }
            }
            for batch in queue.in_flight.iter().filter(|batch| batch.ready) {
                choices.push((queue.eagerness * batch.eagerness, Choice::Run(id, batch.id)));
            }
            if let Some(next) = queue.waiting.front()
                && self.may_start(id, queue, next)
            {
                choices.push((queue.eagerness * next.eagerness, Choice::Start(id)));
            }
        }
        for (place, notification) in self.notifications.iter().take(HANDLER_WINDOW).enumerate() {
            choices.push((
                HANDLER_SCALE * notification.eagerness,
                Choice::Notify(place),
            ));
        }
        choices
    }

    fn may_start(&self, id: QueueId, queue: &QueueState, next: &BatchState) -> bool {
        let Some(device) = self.devices.get(id.device) else {
            return false;
        };
        let permitted = match queue.order {
            Order::InOrder => queue.in_flight.is_empty(),
            Order::Overlapping => true,
            Order::OrderedSignals => !queue
                .in_flight
                .iter()
                .any(|earlier| earlier.commands.iter().any(Command::is_wait)),
        };
        permitted
            && queue.in_flight.len() < device.config.max_overlap
            && self.channel_is_free(id, queue, next)
    }

    /// A channel hands batches out in the order of submission, and stops where one stands at a
    /// wait.
    fn channel_is_free(&self, id: QueueId, queue: &QueueState, next: &BatchState) -> bool {
        let Some(channel) = queue.channel else {
            return true;
        };
        self.active
            .iter()
            .filter(|other| other.device == id.device)
            .filter_map(|other| self.queues.get(other))
            .filter(|other| other.channel == Some(channel))
            .all(|other| {
                let stopped = |batch: &BatchState| {
                    !batch.ready && batch.commands.front().is_some_and(Command::is_wait)
                };
                !other.in_flight.iter().any(stopped)
                    && other
                        .waiting
                        .front()
                        .is_none_or(|first| first.id >= next.id)
            })
    }

    fn apply(&mut self, choice: Choice) -> Todo {
        match choice {
            Choice::Start(id) => self.start(id),
            Choice::Report(id, batch) => self.report(id, batch),
            Choice::Run(id, batch) => return self.run(id, batch),
            Choice::Notify(place) => {
                if let Some(notification) = self.notifications.remove(place) {
                    self.log(TraceEvent::Delivered {
                        of: notification.of,
                        handler: notification.handler,
                    });
                    self.calling += 1;
                    return Todo::Call(notification);
                }
            }
        }
        Todo::Nothing
    }

    fn run(&mut self, queue: QueueId, number: u64) -> Todo {
        let now = self.tick(queue.device);
        let timestamps = self
            .devices
            .get(queue.device)
            .is_some_and(|device| device.config.valid_bits > 0);
        let Some(batch) = self.in_flight(queue, number) else {
            return Todo::Nothing;
        };
        if batch.fault_is_due() {
            self.fail(queue, number, "a fault in the batch".into());
            return Todo::Nothing;
        }
        match batch.commands.front_mut() {
            None
            | Some(
                Command::Wait(..) | Command::WaitFlag(_) | Command::WaitUntil(_) | Command::Gate(_),
            ) => {}
            Some(Command::Run(work)) => {
                // the command stays in its place until the work is done: the batch must not end
                // before
                let work = std::mem::replace(work, Box::new(|| ()));
                batch.busy = true;
                return Todo::Work {
                    queue,
                    batch: number,
                    work,
                };
            }
            Some(Command::Signal(semaphore, value)) => {
                let (semaphore, value) = (semaphore.clone(), *value);
                semaphore.raise(self, value);
                self.trash.push(Box::new(semaphore));
            }
            Some(Command::SetFlag(flag)) => {
                let flag = flag.clone();
                flag.put(self, true);
            }
            Some(Command::ResetFlag(flag)) => {
                let flag = flag.clone();
                flag.put(self, false);
            }
            Some(Command::Timestamp(slot)) if timestamps => slot.write(now),
            Some(Command::Timestamp(slot)) => slot.object.ledger().report(Violation::NoTimestamps),
            Some(Command::ResetSlot(slot)) => slot.clear(),
            Some(Command::Fail(why)) => {
                let why = std::mem::take(why);
                self.fail(queue, number, why);
                return Todo::Nothing;
            }
        }
        self.advance(queue, number);
        Todo::Nothing
    }
}

/// Whether the batch's next command may run. `first` says that nothing submitted earlier has to be
/// waited for.
fn may_run(batch: &mut BatchState, first: bool) -> bool {
    if batch.fault_is_due() {
        return true;
    }
    match batch.commands.front_mut() {
        None => false,
        Some(Command::Wait(semaphore, value)) => semaphore.reached() >= *value,
        Some(Command::WaitFlag(flag)) => flag.reached(),
        Some(Command::WaitUntil(holds)) => catch_unwind(AssertUnwindSafe(holds)).unwrap_or(false),
        Some(Command::Gate(gate)) => gate.0.reached(),
        Some(
            Command::Signal(..)
            | Command::SetFlag(_)
            | Command::ResetFlag(_)
            | Command::Timestamp(_),
        ) => first,
        Some(Command::Run(_) | Command::ResetSlot(_) | Command::Fail(_)) => true,
    }
}
