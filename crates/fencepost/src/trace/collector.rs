//! The thread of a trace, which takes in what is complete.

use std::{sync::Arc, time::Duration};

use super::{intake::Found, shared::Shared};
use crate::{diagnostics, error::Error, panics::contain, sync::thread};

const NAME: &str = "fencepost-trace";

/// How long the thread sleeps after a round that has taken something in.
const SHORTEST: Duration = Duration::from_micros(200);
/// How long it sleeps at most while something is pending.
const LONGEST: Duration = Duration::from_millis(10);
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
    let mut pause = SHORTEST;
    while !shared.is_stopping() {
        let found = shared.round();
        pause = match found {
            Found { taken: 0, .. } => (pause * 2).min(LONGEST),
            _ => SHORTEST,
        };
        let rests = found.pending == 0 && pause == LONGEST;
        let longest = if rests { IDLE } else { pause };
        // What is pending though enough is there waits for the device.
        let is_due = || shared.is_stopping() || (rests && shared.is_due());
        shared.alarm.sleep(Some(longest), is_due);
    }
}
