//! The scheduler. It chooses at random which of the permitted steps is next.

use crate::batch::BatchState;
use crate::command::{Command, Op};
use crate::handler::HandlerCall;
use crate::machine::Machine;
use crate::state::{QueueState, State};
use crate::trace::TraceEvent;
use crate::{Order, QueueId, Violation};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A step that is permitted.
#[derive(Clone, Copy)]
enum Choice {
    Start(QueueId),
    Run(QueueId, u64),
    Report(QueueId, u64),
    CallHandler(usize),
}

/// The part of a step that runs without the lock.
enum Unlocked {
    Nothing,
    Work {
        queue: QueueId,
        batch: u64,
        work: Box<dyn FnOnce() + Send>,
    },
    Call(HandlerCall),
}

/// From how many of the due handlers a step chooses. They are enough to break any order that a
/// caller relies on, and few enough that a step is cheap while thousands are due.
const HANDLER_WINDOW: usize = 32;

/// The weight of work is the product of its queue's weight and its own. A handler has one weight,
/// and this factor brings it to the same scale.
const HANDLER_SCALE: u64 = 16;

impl Machine {
    /// Makes one step. False if none is permitted.
    pub(crate) fn step(&self) -> bool {
        match self.with(State::pick) {
            None => return false,
            Some(Unlocked::Nothing) => {}
            Some(Unlocked::Work { queue, batch, work }) => {
                let result = catch_unwind(AssertUnwindSafe(work));
                self.with(|state| match result {
                    Ok(()) => state.advance(queue, batch),
                    Err(panic) => {
                        let why = format!("work panicked: {}", text_of(&*panic));
                        state.fail(queue, batch, why);
                        state.deferred_drops.push(Box::new(panic));
                    }
                });
            }
            Some(Unlocked::Call(HandlerCall { batch, call, .. })) => {
                if let Err(panic) = catch_unwind(AssertUnwindSafe(call)) {
                    self.tracker.report(Violation::HandlerPanicked {
                        text: text_of(&*panic),
                    });
                }
                self.with(|state| {
                    state.running_handlers -= 1;
                    if let Some(batch) = batch {
                        let mut view = batch.lock();
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
    fn pick(&mut self) -> Option<Unlocked> {
        let choices = self.choices();
        let total: u64 = choices.iter().map(|(weight, _)| weight).sum();
        if total == 0 {
            return None;
        }
        self.steps += 1;
        self.pass_time();
        self.touch();
        let due: Vec<usize> = (0..self.devices.len())
            .filter(|&device| self.devices[device].faults.step())
            .collect();
        if !due.is_empty() {
            for device in due {
                self.lose(device, "a fault".into());
            }
            return Some(Unlocked::Nothing);
        }
        let mut draw = self.rng.below(total);
        let choice = choices.into_iter().find_map(|(weight, choice)| {
            let hit = draw < weight;
            draw = draw.saturating_sub(weight);
            hit.then_some(choice)
        })?;
        Some(self.apply(choice))
    }

    /// Advances the clock by what the step takes: often 0, so that two timestamps may be equal, and
    /// sometimes very long. A clock that follows real time advances by that instead.
    fn pass_time(&mut self) {
        if self.real_time.is_some() {
            return self.follow_real_time();
        }
        let common = self.rng.below(self.max_step_ns.saturating_add(1));
        self.now_ns += match self.rng.below(64) {
            0..16 => 0,
            63 => common.saturating_mul(1000),
            _ => common,
        };
    }

    fn choices(&mut self) -> Vec<(u64, Choice)> {
        for id in &self.active {
            let Some(queue) = self.queues.get_mut(id) else {
                continue;
            };
            let after_all_earlier = queue.order == Order::OrderedSignals;
            for (index, batch) in queue.in_flight.iter_mut().enumerate() {
                batch.ready = !batch.busy && may_run(batch, index == 0 || !after_all_earlier);
            }
        }
        let mut choices = Vec::new();
        for (&id, queue) in self
            .active
            .iter()
            .filter_map(|id| self.queues.get_key_value(id))
        {
            if queue.paused {
                continue;
            }
            let in_any_order = queue.order == Order::Overlapping;
            let oldest = queue.oldest();
            for batch in &queue.unreported {
                if in_any_order || oldest == Some(batch.id) {
                    choices.push((
                        queue.weight * batch.report_weight,
                        Choice::Report(id, batch.id),
                    ));
                }
            }
            for batch in queue.in_flight.iter().filter(|batch| batch.ready) {
                choices.push((queue.weight * batch.weight, Choice::Run(id, batch.id)));
            }
            if let Some(next) = queue.waiting.front()
                && self.may_start(id, queue, next)
            {
                choices.push((queue.weight * next.weight, Choice::Start(id)));
            }
        }
        for (index, call) in self.handler_calls.iter().take(HANDLER_WINDOW).enumerate() {
            choices.push((HANDLER_SCALE * call.weight, Choice::CallHandler(index)));
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
                .any(|earlier| earlier.commands.iter().any(is_wait)),
        };
        permitted
            && queue.in_flight.len() < device.config.max_overlap
            && self.channel_is_free(id, queue, next)
    }

    /// A channel starts batches in the order of submission, and none while a started one is blocked
    /// by a wait.
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
                let stopped =
                    |batch: &BatchState| !batch.ready && batch.next_op().is_some_and(Op::is_wait);
                !other.in_flight.iter().any(stopped)
                    && other
                        .waiting
                        .front()
                        .is_none_or(|first| first.id >= next.id)
            })
    }

    fn apply(&mut self, choice: Choice) -> Unlocked {
        match choice {
            Choice::Start(id) => self.start(id),
            Choice::Report(id, batch) => self.report(id, batch),
            Choice::Run(id, batch) => return self.run(id, batch),
            Choice::CallHandler(index) => {
                if let Some(call) = self.handler_calls.remove(index) {
                    self.log(TraceEvent::Delivered {
                        of: call.of,
                        handler: call.handler,
                    });
                    self.running_handlers += 1;
                    return Unlocked::Call(call);
                }
            }
        }
        Unlocked::Nothing
    }

    fn run(&mut self, queue: QueueId, number: u64) -> Unlocked {
        let now = self.tick(queue.device);
        let timestamps = self
            .devices
            .get(queue.device)
            .is_some_and(|device| device.config.valid_bits > 0);
        let Some(batch) = self.in_flight(queue, number) else {
            return Unlocked::Nothing;
        };
        if batch.fault_is_due() {
            self.fail(queue, number, "a fault in the batch".into());
            return Unlocked::Nothing;
        }
        match batch.next_op_mut() {
            None | Some(Op::Wait(..) | Op::WaitFlag(_) | Op::WaitUntil(_) | Op::Gate(_)) => {}
            Some(Op::Run(work)) => {
                // the command stays in the batch until the work has returned, so that the batch
                // does not end before it
                let work = std::mem::replace(work, Box::new(|| ()));
                batch.busy = true;
                return Unlocked::Work {
                    queue,
                    batch: number,
                    work,
                };
            }
            Some(Op::Signal(timeline, value)) => {
                let (timeline, value) = (timeline.clone(), *value);
                self.signal(&timeline, value);
                self.deferred_drops.push(Box::new(timeline));
            }
            Some(Op::SetFlag(flag)) => flag.store(true),
            Some(Op::ResetFlag(flag)) => flag.store(false),
            Some(Op::Timestamp(query)) if timestamps => query.write(now),
            Some(Op::Timestamp(query)) => query.object.tracker().report(Violation::NoTimestamps),
            Some(Op::ResetQuery(query)) => query.clear(),
            Some(Op::Fail(why)) => {
                let why = std::mem::take(why);
                self.fail(queue, number, why);
                return Unlocked::Nothing;
            }
        }
        self.advance(queue, number);
        Unlocked::Nothing
    }
}

fn is_wait(command: &Command) -> bool {
    command.0.is_wait()
}

/// Whether the batch's next command may run. `oldest` says whether no started batch of its queue
/// was submitted earlier; it is always true where the order of signals is free.
fn may_run(batch: &mut BatchState, oldest: bool) -> bool {
    if batch.fault_is_due() {
        return true;
    }
    match batch.next_op_mut() {
        None => false,
        Some(Op::Wait(timeline, value)) => timeline.value() >= *value,
        Some(Op::WaitFlag(flag) | Op::Gate(flag)) => flag.is_set(),
        Some(Op::WaitUntil(holds)) => catch_unwind(AssertUnwindSafe(holds)).unwrap_or(false),
        Some(Op::Signal(..) | Op::SetFlag(_) | Op::ResetFlag(_) | Op::Timestamp(_)) => oldest,
        Some(Op::Run(_) | Op::ResetQuery(_) | Op::Fail(_)) => true,
    }
}
