//! The life of a batch: submitted, started, run, ended, reported; or failed; or thrown away with
//! its device.

use crate::ledger::{Ledger, Object, Use};
use crate::queue::{SharedView, View, view};
use crate::state::{BatchState, Notification, State};
use crate::trace::TraceEvent;
use crate::{Command, Error, Kind, Outcome, QueueId, Status, Sticky, Submission, WhenFull};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

/// Why a submit did not get through.
pub(crate) enum Full {
    Error(Error),
    /// There is no room, and the configuration says to wait for it.
    Block,
}

impl From<Error> for Full {
    fn from(error: Error) -> Full {
        Full::Error(error)
    }
}

impl State {
    fn check_objects(
        &self,
        device: usize,
        submission: &Submission,
        ledger: &Arc<Ledger>,
    ) -> Result<(), Error> {
        let shares = self
            .devices
            .get(device)
            .is_some_and(|device| device.config.shares_objects);
        let recording = submission
            .recording
            .as_ref()
            .map(|recording| &recording.object);
        for object in submission
            .commands
            .iter()
            .filter_map(Command::object)
            .chain(recording)
        {
            let here =
                Arc::ptr_eq(object.ledger(), ledger) && (shares || object.device() == device);
            if !here {
                return Err(Error::OtherDevice(object.kind()));
            }
            if !object.check("submit") {
                return Err(Error::Destroyed(object.kind()));
            }
        }
        submission
            .recording
            .as_ref()
            .map_or(Ok(()), |recording| recording.check_submit())
    }

    /// Takes the submission only when it is accepted, so that the caller can try again, or drop it
    /// without the lock.
    pub(crate) fn submit(
        &mut self,
        id: QueueId,
        submission: &mut Option<Submission>,
        ledger: &Arc<Ledger>,
    ) -> Result<(u64, SharedView), Full> {
        if !self.room(id)? {
            let blocks = self
                .devices
                .get(id.device)
                .is_some_and(|device| device.config.when_full == WhenFull::Block);
            if blocks {
                return Err(Full::Block);
            }
            self.log(TraceEvent::Refused { queue: id });
            return Err(Error::QueueFull(self.queue(id)?.pending()).into());
        }
        if let Some(submission) = submission.as_ref() {
            self.check_objects(id.device, submission, ledger)?;
        }
        let plan = &mut self
            .devices
            .get_mut(id.device)
            .ok_or(Error::DeviceClosed)?
            .plan;
        if plan.submit(id.index) {
            self.log(TraceEvent::Refused { queue: id });
            return Err(Error::SubmitFailed.into());
        }
        let fail_at = plan.batch(id.index);
        let Submission {
            commands,
            scheduled,
            completed,
            recording,
        } = submission.take().unwrap_or_default();
        let batch = self.next_batch;
        self.next_batch += 1;
        let handlers_left = scheduled.len() + completed.len();
        let shared: SharedView = Arc::new(Mutex::new(View {
            status: Status::Queued,
            handlers_left,
        }));
        let counted = || Object::new(ledger, Kind::Handler, id.device);
        let mut uses: Vec<Use> = commands
            .iter()
            .filter_map(Command::object)
            .map(Use::of)
            .collect();
        if let Some(recording) = recording {
            recording.submitted();
            uses.push(Use::of(&recording.object));
        }
        let scheduled = scheduled
            .into_iter()
            .map(|call| {
                let counted = counted();
                Notification {
                    of: batch,
                    handler: "scheduled",
                    device: id.device,
                    eagerness: self.rng.eagerness(),
                    report: Some(shared.clone()),
                    call: Box::new(move || {
                        call();
                        drop(counted);
                    }),
                }
            })
            .collect();
        let state = BatchState {
            id: batch,
            commands: commands.into(),
            at: 0,
            busy: false,
            ready: false,
            eagerness: self.rng.eagerness(),
            report_eagerness: self.rng.eagerness(),
            fail_at,
            error: None,
            start: None,
            end: 0,
            view: shared.clone(),
            scheduled,
            completed: completed
                .into_iter()
                .map(|call| (call, counted()))
                .collect(),
            uses,
        };
        self.queues
            .get_mut(&id)
            .ok_or(Error::DeviceClosed)?
            .waiting
            .push_back(state);
        self.active.insert(id);
        self.log(TraceEvent::Submitted { queue: id, batch });
        self.touch();
        Ok((batch, shared))
    }

    pub(crate) fn start(&mut self, id: QueueId) {
        let tick = self.tick(id.device);
        let new_mood = (self.rng.below(8) == 0).then(|| self.rng.eagerness());
        let Some(queue) = self.queues.get_mut(&id) else {
            return;
        };
        queue.eagerness = new_mood.unwrap_or(queue.eagerness);
        let Some(mut batch) = queue.waiting.pop_front() else {
            return;
        };
        batch.start = Some(tick);
        view(&batch.view).status = Status::Running;
        let number = batch.id;
        let scheduled = std::mem::take(&mut batch.scheduled);
        queue.in_flight.push(batch);
        self.notifications.extend(scheduled);
        self.log(TraceEvent::Started {
            queue: id,
            batch: number,
        });
        self.end_if_all_ran(id, number);
    }

    /// The present command of the batch is done.
    pub(crate) fn advance(&mut self, id: QueueId, number: u64) {
        let Some(batch) = self.in_flight(id, number) else {
            return;
        };
        let index = batch.at;
        batch.at += 1;
        batch.busy = false;
        let Some(command) = batch.commands.pop_front() else {
            return;
        };
        self.log(TraceEvent::Ran {
            queue: id,
            batch: number,
            index,
            command: command.name(),
        });
        self.trash.push(Box::new(command));
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

    /// One batch fails, and whatever the configuration says fails with it.
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
            view(&batch.view).handlers_left -= scheduled.len();
            let event = TraceEvent::Failed {
                queue: id,
                batch: batch.id,
            };
            if let Some(queue) = self.queues.get_mut(&id) {
                queue.unreported.push(batch);
            }
            self.trash.push(Box::new((commands, scheduled)));
            self.log(event);
        }
        self.touch();
    }

    /// The device is lost: what is pending fails, and every later call.
    pub(crate) fn lose(&mut self, device: usize, why: String) {
        let Some(state) = self.devices.get_mut(device) else {
            return;
        };
        if state.lost.is_some() || state.closed {
            return;
        }
        state.lost = Some(why.clone());
        self.log(TraceEvent::Lost { device });
        for id in self
            .active
            .iter()
            .copied()
            .filter(|id| id.device == device)
            .collect::<Vec<_>>()
        {
            self.fail_batches(id, &why, |_| true);
        }
        self.touch();
    }

    /// The host is told that a batch has ended.
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
        view(&batch.view).status = Status::Ended(outcome.clone());
        self.log(TraceEvent::Completed {
            queue: id,
            batch: number,
            ok,
        });
        for (call, counted) in batch.completed {
            let outcome = outcome.clone();
            let eagerness = self.rng.eagerness();
            self.notify(Notification {
                of: number,
                handler: "completed",
                device: id.device,
                eagerness,
                report: Some(batch.view.clone()),
                call: Box::new(move || {
                    call(outcome);
                    drop(counted);
                }),
            });
        }
        self.touch();
        self.forget_if_done(id);
    }

    pub(crate) fn forget_if_done(&mut self, id: QueueId) {
        let Some(queue) = self.queues.get(&id) else {
            return;
        };
        if queue.pending() == 0 {
            self.active.remove(&id);
            if queue.orphan {
                self.queues.remove(&id);
            }
        }
    }

    /// The last handle of the device is gone: its pending work, which may own handles of the
    /// machine, is thrown away.
    pub(crate) fn close(&mut self, device: usize) {
        if let Some(state) = self.devices.get_mut(device) {
            state.closed = true;
        }
        for id in self
            .queues
            .keys()
            .copied()
            .filter(|id| id.device == device)
            .collect::<Vec<_>>()
        {
            let end = self.tick(device);
            self.active.remove(&id);
            let Some(queue) = self.queues.remove(&id) else {
                continue;
            };
            for batch in queue
                .waiting
                .into_iter()
                .chain(queue.in_flight)
                .chain(queue.unreported)
            {
                let error = Some(Error::DeviceClosed.to_string());
                *view(&batch.view) = View {
                    status: Status::Ended(Outcome {
                        start: batch.start,
                        end,
                        error,
                    }),
                    handlers_left: 0,
                };
                self.trash.push(Box::new((
                    batch.commands,
                    batch.scheduled,
                    batch.completed,
                    batch.uses,
                )));
            }
        }
        let (gone, kept): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut self.notifications)
            .into_iter()
            .partition(|notification| notification.device == device);
        self.notifications = kept;
        for notification in &gone {
            if let Some(shared) = &notification.report {
                view(shared).handlers_left = 0;
            }
        }
        self.trash.push(Box::new(gone));
        self.touch();
    }
}
