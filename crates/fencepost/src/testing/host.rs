//! The work that tests put on host streams: closures.

use std::{panic::resume_unwind, sync::Arc, time::Duration};

use super::{
    bytes::{self, ByteCounterImpl},
    test_work::{Gate, Log, TestWork},
};
use crate::{
    contract::{Backend, DeviceImpl, MarkerImpl, StreamImpl},
    core::DeviceCore,
    error::Result,
    gate::Barrier,
    place::Place,
};

/// The test work of a device, if it is a host device.
pub(super) fn work_of(device: &dyn DeviceImpl) -> Option<Arc<dyn TestWork>> {
    let core = match device.backend() {
        Backend::Host => device.core().clone(),
        _ => return None,
    };
    Some(Arc::new(HostWork { core }))
}

/// The test work of one host device.
struct HostWork {
    core: Arc<DeviceCore>,
}

impl TestWork for HostWork {
    fn new_log(&self) -> Result<Log> {
        Ok(Log::in_memory())
    }

    fn gate(&self, stream: &dyn StreamImpl, at: Place) -> Result<Gate> {
        let barrier = Barrier::on(&self.core, Duration::MAX, at);
        let marker: Arc<dyn MarkerImpl> = barrier.clone();
        stream.wait(&marker)?;
        Ok(Gate::new(move || barrier.open()))
    }

    fn append(&self, stream: &dyn StreamImpl, log: &Log, token: u32) -> Result<()> {
        let log = log.clone();
        let work = move || {
            log.push(token);
            Ok(())
        };
        stream.launch(Box::new(work), Place::caller())
    }

    fn spin(&self, stream: &dyn StreamImpl, amount: u64) -> Result<()> {
        let work = move || {
            std::thread::sleep(Duration::from_nanos(amount));
            Ok(())
        };
        stream.launch(Box::new(work), Place::caller())
    }

    fn fail(&self, stream: &dyn StreamImpl, text: &str) -> Result<()> {
        let text = text.to_owned();
        // Unwinds without the panic hook: a failure that a test asks for needs no report.
        let work = move || resume_unwind(Box::new(text));
        stream.launch(Box::new(work), Place::caller())
    }

    fn byte_counter(&self, _capacity: usize) -> Result<Arc<dyn ByteCounterImpl>> {
        Err(bytes::no_counter(&self.core.name))
    }
}
