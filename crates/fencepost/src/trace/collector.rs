//! The thread of a trace, which takes in what is complete.

use std::{sync::Arc, time::Duration};

use super::shared::Shared;
use crate::{diagnostics, error::Error, panics::contain, sync::thread};

const NAME: &str = "fencepost-trace";

/// How long the thread sleeps after a round while something is pending, unless it is woken. Its
/// calls of a driver hold up those of others, so that it makes many at once, and seldom.
const PAUSE: Duration = Duration::from_millis(5);
/// How long it sleeps at most: then the device's clock is read again where there are spans.
const IDLE: Duration = Duration::from_secs(1);

/// Starts the thread. Without one, spans are taken in when somebody collects.
pub(super) fn start(shared: &Arc<Shared>) {
    shared.alarm.start(|| {
        let of = shared.clone();
        let started = thread::Builder::new()
            .name(NAME.into())
            .spawn(move || contain(|| run(&of)));
        match started {
            Ok(handle) => Some(handle.thread().clone()),
            Err(error) => {
                let error = Error::Backend {
                    call: "std::thread::Builder::spawn",
                    code: error.raw_os_error().unwrap_or(-1).into(),
                    text: error.to_string(),
                };
                diagnostics::thread_not_started(NAME, &error);
                shared.note_error(&error);
                None
            }
        }
    });
}

fn run(shared: &Shared) {
    while !shared.is_stopping() {
        let found = shared.round();
        let rests = found.pending == 0;
        let longest = if rests { IDLE } else { PAUSE };
        // What is pending though enough is there waits for the device.
        let is_due = || shared.is_stopping() || (rests && shared.is_due());
        shared.alarm.sleep(Some(longest), is_due);
    }
}
