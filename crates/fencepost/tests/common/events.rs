//! A subscriber for the events of the feature `tracing`.

use std::{
    fmt::Debug,
    sync::{Mutex, mpsc},
};

use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

/// The library's events from now on, in words. For all threads, and once in a process: events come
/// from threads of the library.
pub(crate) fn listen() -> mpsc::Receiver<String> {
    let (sender, events) = mpsc::channel();
    tracing::subscriber::set_global_default(Words(Mutex::new(sender))).unwrap();
    events
}

/// Sends what each event of the library says, in words.
struct Words(Mutex<mpsc::Sender<String>>);

struct Text(String);

impl Visit for Text {
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
        let mut words = Text(format!("{} ", event.metadata().level()));
        event.record(&mut words);
        let _ = self.0.lock().unwrap().send(words.0);
    }
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}
