//! The lifecycle of a batch: it is submitted, starts, runs, ends and is reported. Instead, it may
//! fail, or be dropped with its device.

use crate::batch::BatchState;
use crate::command::Command;
use crate::handler::{CompletedHandler, HandlerCall};
use crate::object::{Object, ObjectTracker, Use};
use crate::state::State;
use crate::status::HostView;
use crate::trace::TraceEvent;
use crate::{Error, ObjectKind, Outcome, QueueId, Status, Sticky, Submission, WhenFull};
use std::collections::VecDeque;
use std::sync::Arc;

/// Why a submit was not accepted.
pub(crate) enum Refused {
    Error(Error),
    /// The queue is full, and the configuration says that the caller blocks.
    Block,
}

impl From<Error> for Refused {
    fn from(error: Error) -> Refused {
        Refused::Error(error)
    }
}

/// # Submitting
impl State {
    /// Takes the submission only if it is accepted. Otherwise the caller keeps it, to try again or
    /// to drop it without the lock.
    pub(crate) fn submit(
        &mut self,
        id: QueueId,
        submission: &mut Option<Submission>,
        tracker: &Arc<ObjectTracker>,
    ) -> Result<(u64, HostView), Refused> {
        self.check_room(id)?;
        if let Some(submission) = submission.as_ref() {
            self.check_objects(id.device, submission, tracker)?;
        }
        let device = self.devices.get_mut(id.device);
        let faults = &mut device.ok_or(Error::DeviceClosed)?.faults;
        if faults.submit(id.index) {
            self.log(TraceEvent::Refused { queue: id });
            return Err(Error::SubmitFailed.into());
        }
        let fail_at = faults.batch(id.index);
        let submission = submission.take().unwrap_or_default();
        let batch = self.new_batch(id.device, submission, fail_at, tracker);
        let (number, view) = (batch.id, batch.view.clone());
        let queue = self.queues.get_mut(&id).ok_or(Error::DeviceClosed)?;
        queue.waiting.push_back(batch);
        self.active.insert(id);
        self.log(TraceEvent::Submitted {
            queue: id,
            batch: number,
        });
        self.touch();
        Ok((number, view))
    }

    fn check_room(&mut self, id: QueueId) -> Result<(), Refused> {
        if self.has_room(id)? {
            return Ok(());
        }
        let blocks = self
            .devices
            .get(id.device)
            .is_some_and(|device| device.config.when_full == WhenFull::Block);
        if blocks {
            self.log(TraceEvent::Blocked { queue: id });
            self.touch();
            return Err(Refused::Block);
        }
        self.log(TraceEvent::Refused { queue: id });
        Err(Error::QueueFull(self.queue(id)?.pending()).into())
    }

    fn check_objects(
        &self,
        device: usize,
        submission: &Submission,
        tracker: &Arc<ObjectTracker>,
    ) -> Result<(), Error> {
        let shares = self
            .devices
            .get(device)
            .is_some_and(|device| device.config.shares_objects);
        let recording = submission.recording.as_ref();
        let named = submission.commands.iter().filter_map(object_of);
        for object in named.chain(recording.map(|recording| &recording.object)) {
            let usable =
                Arc::ptr_eq(object.tracker(), tracker) && (shares || object.device() == device);
            if !usable {
                return Err(Error::OtherDevice(object.kind()));
            }
            if !object.check("submit") {
                return Err(Error::Destroyed(object.kind()));
            }
        }
        recording.map_or(Ok(()), |recording| recording.check_submit())
    }

    fn new_batch(
        &mut self,
        device: usize,
        submission: Submission,
        fail_at: Option<usize>,
        tracker: &Arc<ObjectTracker>,
    ) -> BatchState {
        let Submission {
            commands,
            scheduled,
            completed,
            recording,
        } = submission;
        let id = self.next_batch;
        self.next_batch += 1;
        let view = HostView::queued(scheduled.len() + completed.len());
        let counted = || Object::new(tracker, ObjectKind::Handler, device);
        let mut uses: Vec<Use> = commands.iter().filter_map(object_of).map(Use::of).collect();
        if let Some(recording) = recording {
            recording.count_submit();
            uses.push(Use::of(&recording.object));
        }
        let scheduled = scheduled
            .into_iter()
            .map(|call| {
                let counted = counted();
                HandlerCall {
                    of: id,
                    handler: "scheduled",
                    device,
                    weight: self.rng.weight(),
                    batch: Some(view.clone()),
                    call: Box::new(move || {
                        call();
                        drop(counted);
                    }),
                }
            })
            .collect();
        let completed = completed.into_iter().map(|call| CompletedHandler {
            call,
            counted: counted(),
        });
        BatchState {
            id,
            commands: commands.into(),
            index: 0,
            busy: false,
            ready: false,
            weight: self.rng.weight(),
            report_weight: self.rng.weight(),
            fail_at,
            error: None,
            start: None,
            end: 0,
            view,
            scheduled,
            completed: completed.collect(),
            uses,
        }
    }
}

fn object_of(command: &Command) -> Option<&Arc<Object>> {
    command.0.object()
}

/// # Running
impl State {
    pub(crate) fn start(&mut self, id: QueueId) {
        let tick = self.tick(id.device);
        let new_weight = (self.rng.below(8) == 0).then(|| self.rng.weight());
        let Some(queue) = self.queues.get_mut(&id) else {
            return;
        };
        queue.weight = new_weight.unwrap_or(queue.weight);
        let Some(mut batch) = queue.waiting.pop_front() else {
            return;
        };
        batch.start = Some(tick);
        batch.view.lock().status = Status::Running;
        let number = batch.id;
        let scheduled = std::mem::take(&mut batch.scheduled);
        queue.in_flight.push(batch);
        self.handler_calls.extend(scheduled);
        self.log(TraceEvent::Started {
            queue: id,
            batch: number,
        });
        self.end_if_all_ran(id, number);
    }

    /// Removes the batch's next command, which has run.
    pub(crate) fn advance(&mut self, id: QueueId, number: u64) {
        let Some(batch) = self.in_flight(id, number) else {
            return;
        };
        let index = batch.index;
        batch.index += 1;
        batch.busy = false;
        let Some(command) = batch.commands.pop_front() else {
            return;
        };
        self.log(TraceEvent::Ran {
            queue: id,
            batch: number,
            index,
            command: command.0.name(),
        });
        self.deferred_drops.push(Box::new(command));
        self.touch();
        self.end_if_all_ran(id, number);
    }

    fn end_if_all_ran(&mut self, id: QueueId, number: u64) {
        let tick = self.tick(id.device);
        let Some(batch) = self.in_flight(id, number) else {
            return;
        };
        if !batch.commands.is_empty() {
            return;
        }
        if batch.fail_at.is_some() {
            return self.fail(id, number, "a fault at the end of the batch".into());
        }
        batch.end = tick;
        if let Some(queue) = self.queues.get_mut(&id) {
            queue
                .unreported
                .extend(queue.in_flight.extract_if(.., |batch| batch.id == number));
        }
    }

    pub(crate) fn in_flight(&mut self, id: QueueId, number: u64) -> Option<&mut BatchState> {
        self.queues
            .get_mut(&id)?
            .in_flight
            .iter_mut()
            .find(|batch| batch.id == number)
    }
}

/// # Failing
impl State {
    /// Fails one batch, and what fails with it according to the device's [`Sticky`].
    pub(crate) fn fail(&mut self, id: QueueId, number: u64, why: String) {
        let Some(sticky) = self
            .devices
            .get(id.device)
            .map(|device| device.config.sticky)
        else {
            return;
        };
        self.fail_batches(id, &why, |batch| batch.id == number);
        match sticky {
            Sticky::Batch => {}
            Sticky::Queue => {
                self.fail_batches(id, &why, |_| true);
                if let Some(queue) = self.queues.get_mut(&id) {
                    queue.error.get_or_insert(why);
                }
            }
            Sticky::Device => self.lose(id.device, why),
        }
    }

    fn fail_batches(&mut self, id: QueueId, why: &str, mut which: impl FnMut(&BatchState) -> bool) {
        let tick = self.tick(id.device);
        let Some(queue) = self.queues.get_mut(&id) else {
            return;
        };
        let mut failed: Vec<BatchState> = queue
            .in_flight
            .extract_if(.., |batch| which(batch))
            .collect();
        let (chosen, rest) = std::mem::take(&mut queue.waiting)
            .into_iter()
            .partition(|batch| which(batch));
        queue.waiting = rest;
        failed.extend::<VecDeque<BatchState>>(chosen);
        for mut batch in failed {
            batch.error = Some(why.into());
            batch.end = tick;
            let commands = std::mem::take(&mut batch.commands);
            let scheduled = std::mem::take(&mut batch.scheduled);
            batch.view.lock().handlers_left -= scheduled.len();
            let event = TraceEvent::Failed {
                queue: id,
                batch: batch.id,
            };
            if let Some(queue) = self.queues.get_mut(&id) {
                queue.unreported.push(batch);
            }
            self.deferred_drops.push(Box::new((commands, scheduled)));
            self.log(event);
        }
        self.touch();
    }

    /// Loses the device: its pending batches and all later calls fail.
    pub(crate) fn lose(&mut self, device: usize, why: String) {
        let Some(state) = self.devices.get_mut(device) else {
            return;
        };
        if state.lost.is_some() || state.closed {
            return;
        }
        state.lost = Some(why.clone());
        self.log(TraceEvent::Lost { device });
        let active = self.active.iter().copied();
        let own: Vec<QueueId> = active.filter(|id| id.device == device).collect();
        for id in own {
            self.fail_batches(id, &why, |_| true);
        }
        self.touch();
    }
}

/// # Ending
impl State {
    /// Reports to the host that a batch has ended.
    pub(crate) fn report(&mut self, id: QueueId, number: u64) {
        let Some(queue) = self.queues.get_mut(&id) else {
            return;
        };
        let Some(batch) = queue
            .unreported
            .extract_if(.., |batch| batch.id == number)
            .next()
        else {
            return;
        };
        let outcome = Outcome {
            start: batch.start,
            end: batch.end,
            error: batch.error,
        };
        let ok = outcome.error.is_none();
        drop(batch.uses);
        batch.view.lock().status = Status::Ended(outcome.clone());
        self.log(TraceEvent::Completed {
            queue: id,
            batch: number,
            ok,
        });
        for CompletedHandler { call, counted } in batch.completed {
            let outcome = outcome.clone();
            let weight = self.rng.weight();
            self.queue_handler(HandlerCall {
                of: number,
                handler: "completed",
                device: id.device,
                weight,
                batch: Some(batch.view.clone()),
                call: Box::new(move || {
                    call(outcome);
                    drop(counted);
                }),
            });
        }
        self.touch();
        self.remove_if_done(id);
    }

    /// Removes an idle queue from the active ones, and altogether if its last handle was dropped.
    pub(crate) fn remove_if_done(&mut self, id: QueueId) {
        let Some(queue) = self.queues.get(&id) else {
            return;
        };
        if queue.pending() == 0 {
            self.active.remove(&id);
            if queue.handle_dropped {
                self.queues.remove(&id);
            }
        }
    }

    /// Closes the device, whose last handle was dropped. Its pending work is dropped and does not
    /// run, since it may own handles of the machine.
    pub(crate) fn close(&mut self, device: usize) {
        if let Some(state) = self.devices.get_mut(device) {
            state.closed = true;
        }
        let end = self.tick(device);
        let queues = self.queues.keys().copied();
        let own: Vec<QueueId> = queues.filter(|id| id.device == device).collect();
        for id in own {
            self.active.remove(&id);
            let Some(queue) = self.queues.remove(&id) else {
                continue;
            };
            let started = queue.in_flight.into_iter().chain(queue.unreported);
            for batch in queue.waiting.into_iter().chain(started) {
                let mut view = batch.view.lock();
                view.status = Status::Ended(Outcome {
                    start: batch.start,
                    end,
                    error: Some(Error::DeviceClosed.to_string()),
                });
                view.handlers_left = 0;
                drop(view);
                self.deferred_drops.push(Box::new((
                    batch.commands,
                    batch.scheduled,
                    batch.completed,
                    batch.uses,
                )));
            }
        }
        let (gone, kept): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut self.handler_calls)
            .into_iter()
            .partition(|call| call.device == device);
        self.handler_calls = kept;
        for view in gone.iter().filter_map(|call| call.batch.as_ref()) {
            view.lock().handlers_left = 0;
        }
        self.deferred_drops.push(Box::new(gone));
        self.touch();
    }
}
