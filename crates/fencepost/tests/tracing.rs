//! What the feature `tracing` tells of the host device: that a callback panicked.

#![cfg(not(loom))]

use std::{
    fmt::Debug,
    sync::{Mutex, mpsc},
};

use fencepost::Device;
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

/// Sends what each event of the library says, in words.
struct Words(Mutex<mpsc::Sender<String>>);

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0 += &format!("{}={value:?} ", field.name());
    }
}

impl Subscriber for Words {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("fencepost")
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut line = Line(format!("{} ", event.metadata().level()));
        event.record(&mut line);
        let _ = self.0.lock().unwrap().send(line.0);
    }
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

#[test]
fn a_callback_that_panicked_is_an_event() {
    let (tell, told) = mpsc::channel();
    // For all threads: the callback runs on one of the library's.
    tracing::subscriber::set_global_default(Words(Mutex::new(tell))).unwrap();
    let device = Device::new_host(1);
    let marker = device.default_stream().record().unwrap();
    marker
        .on_complete(|_| std::panic::resume_unwind(Box::new("no more paper")))
        .unwrap();
    let line = told
        .recv_timeout(std::time::Duration::from_secs(60))
        .unwrap();
    assert!(line.starts_with("ERROR"), "{line}");
    assert!(line.contains("callback panicked"), "{line}");
    assert!(line.contains("no more paper"), "{line}");
    assert_eq!(device.callback_panics(), 1);
}
