//! The events of the feature `tracing` on the host device: a callback that panicked, and a thread
//! that could not be started. `cuda_faults` has the one for a lost device.
//!
//! A process has one subscriber, so each test runs in a process of its own.

#![cfg(not(loom))]

use std::time::Duration;

use fencepost::Device;

mod common;
#[path = "common/events.rs"]
mod events;

const PATIENCE: Duration = fencepost_sim::HANG_TIMEOUT;

#[test]
fn a_callback_that_panicked_is_an_event() {
    common::in_a_process_of_its_own(|| {
        let events = events::listen();
        let device = Device::new_host(1);
        let marker = device.default_stream().record().unwrap();
        marker
            .on_complete(|_| std::panic::resume_unwind(Box::new("no more paper")))
            .unwrap();
        let event = events.recv_timeout(PATIENCE).unwrap();
        assert!(event.starts_with("ERROR"), "{event}");
        assert!(event.contains("callback panicked"), "{event}");
        assert!(event.contains("no more paper"), "{event}");
        assert_eq!(device.callback_panics(), 1);
    });
}

/// Without address space for a stack, no thread can be started.
#[cfg(target_os = "linux")]
#[test]
fn a_thread_that_cannot_be_started_is_an_event() {
    common::in_a_process_of_its_own(|| {
        let events = events::listen();
        let stream = Device::new_host(1).new_stream().unwrap();
        let limit = common::limit_memory(1 << 20);
        let launched = stream.launch(|| ());
        common::limit_memory(limit);
        let error = launched.unwrap_err().to_string();
        assert!(error.contains("spawn"), "{error}");
        let event = events.recv_timeout(PATIENCE).unwrap();
        assert!(event.starts_with("ERROR"), "{event}");
        assert!(event.contains("thread could not be started"), "{event}");
        assert!(event.contains("spawn"), "{event}");
    });
}
