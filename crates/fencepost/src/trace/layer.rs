//! Spans of the crate `tracing` on the axis of a trace.

use std::{cell::RefCell, fmt, time::Instant};

use tracing::{
    Subscriber,
    field::{Field, Visit},
    span,
};
use tracing_subscriber::{
    layer::{Context, Layer},
    registry::LookupSpan,
};

use super::{
    Trace,
    threads::HostRecord,
    value::{self, Attributes, Value},
};

/// Puts the spans of the crate [`tracing`](https://docs.rs/tracing) on the axis of a trace. Made by
/// [`Trace::layer`].
///
/// Each time that a thread is in a span is a span of that thread, from its enter to its exit: of a
/// future that is polled three times there are three. Each has the fields of the span: of a field
/// that is recorded again the last value. What is entered when the picture is taken is not in it.
///
/// ```
/// use fencepost::{Device, trace::Trace};
/// use tracing_subscriber::layer::SubscriberExt as _;
///
/// let trace = Trace::new();
/// let subscriber = tracing_subscriber::registry().with(trace.layer());
/// tracing::subscriber::with_default(subscriber, || {
///     tracing::info_span!("request", number = 7).in_scope(|| println!("work"));
/// });
/// assert_eq!(trace.collect().finished, 1);
/// # Ok::<(), fencepost::Error>(())
/// ```
#[derive(Debug)]
pub struct TraceLayer {
    trace: Trace,
}

impl Trace {
    /// What puts the spans of the crate `tracing` into this trace: for a subscriber that is a
    /// registry of `tracing-subscriber`, with a filter in front if not all are wanted. The trace
    /// lives as long as the layer.
    ///
    /// # References
    /// - [`tracing_subscriber::Layer`](https://docs.rs/tracing-subscriber/latest/tracing_subscriber/layer/trait.Layer.html)
    ///
    /// ```
    /// use tracing_subscriber::layer::SubscriberExt as _;
    /// let trace = fencepost::trace::Trace::new();
    /// let subscriber = tracing_subscriber::registry().with(trace.layer());
    /// ```
    #[must_use]
    pub fn layer(&self) -> TraceLayer {
        TraceLayer {
            trace: self.clone(),
        }
    }
}

/// The fields of a span, as the first layer has noted them that saw it.
struct Fields {
    trace: u64,
    attributes: Attributes,
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.note(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.note(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.note(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.note(field, value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.note(field, value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.note(field, format!("{value:?}").into());
    }
}

impl Fields {
    fn note(&mut self, field: &Field, value: Value) {
        value::note(&mut self.attributes, field.name(), value);
    }
}

/// A span that a thread is in.
struct Entered {
    trace: u64,
    span: u64,
    at: Instant,
}

thread_local! {
    static ENTERED: RefCell<Vec<Entered>> = const { RefCell::new(Vec::new()) };
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for TraceLayer {
    fn on_new_span(
        &self,
        attributes: &span::Attributes<'_>,
        id: &span::Id,
        context: Context<'_, S>,
    ) {
        let Some(span) = context.span(id) else {
            return;
        };
        let mut extensions = span.extensions_mut();
        if extensions.get_mut::<Fields>().is_none() {
            let mut fields = Fields {
                trace: self.trace.shared().id,
                attributes: None,
            };
            attributes.record(&mut fields);
            extensions.insert(fields);
        }
    }

    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
            && fields.trace == self.trace.shared().id
        {
            values.record(fields);
        }
    }

    fn on_enter(&self, id: &span::Id, _: Context<'_, S>) {
        let entered = Entered {
            trace: self.trace.shared().id,
            span: id.into_u64(),
            at: Instant::now(),
        };
        // At the end of a thread nothing is noted.
        let _ = ENTERED.try_with(|all| all.try_borrow_mut().map(|mut all| all.push(entered)));
    }

    fn on_exit(&self, id: &span::Id, context: Context<'_, S>) {
        let end = Instant::now();
        let shared = self.trace.shared();
        let is_it = |it: &Entered| it.trace == shared.id && it.span == id.into_u64();
        let entered = ENTERED.try_with(|all| {
            let mut all = all.try_borrow_mut().ok()?;
            let at = all.iter().rposition(is_it)?;
            Some(all.remove(at))
        });
        let (Ok(Some(entered)), Some(span)) = (entered, context.span(id)) else {
            return;
        };
        if !self.trace.is_ours() {
            return;
        }
        let extensions = span.extensions();
        let fields = extensions.get::<Fields>();
        let Some((track, name)) = shared.begin_here(span.name(), || None) else {
            return;
        };
        shared.host(HostRecord {
            track,
            start: shared.since_origin(entered.at),
            length: end.saturating_duration_since(entered.at).as_nanos() as u64,
            name,
            attributes: fields.and_then(|fields| fields.attributes.clone()),
            mark: None,
        });
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;
    use crate::Device;

    #[test]
    fn spans_of_tracing_nest_with_those_of_the_trace_and_have_their_fields() {
        let device = Device::open("host").unwrap();
        let (trace, other) = (Trace::new(), Trace::new());
        let stream = device.new_stream().unwrap();
        let subscriber = tracing_subscriber::registry()
            .with(trace.layer())
            .with(other.layer());
        tracing::subscriber::with_default(subscriber, || {
            let request = tracing::info_span!(
                "request",
                number = 7,
                kind = "get",
                late = tracing::field::Empty
            );
            request.in_scope(|| {
                tracing::info_span!("parse").in_scope(|| ());
                trace.span("kernel", &stream).end();
                request.record("late", false);
                request.record("late", true);
            });
            // A future that is polled again.
            request.in_scope(|| ());
        });
        stream.synchronize().unwrap();
        trace.collect();
        let picture = trace.picture();
        let text = |number: u32| &*picture.texts[number as usize];
        let names: Vec<_> = picture
            .slices
            .iter()
            .map(|slice| text(slice.name))
            .collect();
        let of = |name| names.iter().filter(|found| **found == name).count();
        assert_eq!(
            [of("request"), of("parse"), of("kernel")],
            [2, 1, 1],
            "{names:?}"
        );
        let find = |name| names.iter().position(|found| *found == name).unwrap();
        let (outer, inner) = (find("request"), find("parse"));
        let (outer, inner) = (&picture.slices[outer], &picture.slices[inner]);
        assert!(outer.start <= inner.start && inner.end <= outer.end);
        let range = outer.attributes.start as usize..outer.attributes.end as usize;
        let fields = &picture.attributes[range];
        let fields: Vec<_> = fields.iter().map(|field| text(field.name)).collect();
        assert_eq!(fields, ["number", "kind", "late"]);
        let late = &picture.attributes[outer.attributes.start as usize + 2];
        let late = late.value;
        assert!(
            matches!(late, super::super::picture::Value::Bool(true)),
            "{late:?}"
        );
        assert_eq!(other.collect().finished, 3, "each layer has its own");
    }
}
