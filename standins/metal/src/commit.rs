//! A command buffer from its commit to its end, and its handlers.

use crate::command_buffer::{CommandBuffer, Handler, Stage, State};
use crate::dispatch::Carried;
use crate::report;
use fencepost_sim::{Command, Submission};
use objc2::runtime::ProtocolObject;
use objc2::{DefinedClass, Message};
use std::ptr::NonNull;
use std::sync::PoisonError;
use std::time::Duration;

impl CommandBuffer {
    /// Advances to a later stage. False, with a violation, if it is not later.
    pub(crate) fn advance(&self, what: &str, to: Stage) -> bool {
        let mut state = self.state();
        if state.stage >= to {
            report::violation(&format!(
                "{what} of a command buffer that was already {:?}",
                state.stage
            ));
            return false;
        }
        if to == Stage::Committed {
            if state.encoder_is_open {
                report::violation("commit of a command buffer whose encoder is open");
            }
            state.planned = report::commit_failure();
        }
        state.stage = to;
        true
    }

    /// Submits it to the simulated device. The state stays locked, so that no handler runs before
    /// the batch is stored.
    pub(crate) fn submit(&self) {
        let mut state = self.state();
        let mut commands = std::mem::take(&mut state.commands);
        if let Some(failure) = &state.planned {
            let place = failure.after.min(commands.len());
            commands.insert(place, Command::fail(failure.text.clone()));
        }
        let mut submission = Submission::new();
        for command in commands {
            submission = submission.then(command);
        }
        for place in 0..state.scheduled.len() {
            let this = self.retain();
            submission = submission.on_scheduled(move || this.deliver_scheduled(place));
        }
        for place in 0..state.completed.len() {
            let this = self.retain();
            submission = submission.on_completed(move |_| {
                this.check_events();
                this.deliver_completed(place);
            });
        }
        let this = self.retain();
        submission = submission.on_completed(move |_| {
            this.check_events();
            this.end();
        });
        match self.ivars().queue.sim().submit(submission) {
            Ok(batch) => state.batch = Some(batch),
            // the device is removed: the completed handlers are called nevertheless
            Err(_) => {
                state.refused = true;
                let handlers = state.completed.len();
                drop(state);
                let this = self.retain();
                self.gpu().callbacks.complete(Box::new(move || this.end()));
                (0..handlers).for_each(|place| self.deliver_completed(place));
            }
        }
    }

    fn deliver_scheduled(&self, place: usize) {
        let handler = self.state().scheduled[place].take();
        self.deliver(handler, |state| state.scheduled_left -= 1);
    }

    fn deliver_completed(&self, place: usize) {
        let handler = self.state().completed[place].take();
        self.deliver(handler, |state| state.handlers_left -= 1);
    }

    fn deliver(&self, handler: Option<Handler>, called: impl FnOnce(&mut State) + Send + 'static) {
        let Some(handler) = handler else {
            return;
        };
        let carried = Carried((self.retain(), handler));
        self.gpu().callbacks.complete(Box::new(move || {
            let (this, handler) = carried.into_inner();
            let _guard = HandlerGuard(&this, Some(called));
            handler.call((NonNull::from(ProtocolObject::from_ref(&*this)),));
        }));
    }

    /// Releases its resources, once it has completed or failed.
    fn end(&self) {
        let mut state = self.state();
        state.ended = true;
        let kept = std::mem::take(&mut state.kept);
        let permit = state.permit.take();
        // if it failed before it started, its scheduled handlers are never called
        let began = self
            .outcome(&state)
            .is_some_and(|outcome| outcome.start.is_some());
        let never_called = match began {
            true => Vec::new(),
            false => std::mem::take(&mut state.scheduled),
        };
        drop(state);
        self.ivars().changed.notify_all();
        drop((kept, permit, never_called));
    }

    pub(crate) fn wait(&self, what: &str, over: impl Fn(&State) -> bool) {
        let mut state = self.state();
        if state.stage < Stage::Committed {
            drop(state);
            return report::violation(&format!("{what} before commit"));
        }
        while !over(&state) {
            // polls, since the start of a batch wakes no thread
            let again = Duration::from_millis(2);
            let waited = self.ivars().changed.wait_timeout(state, again);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Counts a handler as returned and wakes waiting threads when it is dropped, so also if the
/// handler panics.
struct HandlerGuard<'a, F: FnOnce(&mut State)>(&'a CommandBuffer, Option<F>);

impl<F: FnOnce(&mut State)> Drop for HandlerGuard<'_, F> {
    fn drop(&mut self) {
        if let Some(called) = self.1.take() {
            called(&mut self.0.state());
        }
        self.0.ivars().changed.notify_all();
    }
}
