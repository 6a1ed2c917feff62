//! Guards: what ends a span.

use std::{borrow::Borrow, fmt, time::Instant};

use super::{
    Trace,
    pending::Begun,
    recorder::Pair,
    store::Record,
    threads::{HostRecord, Name},
    value::{self, Attributes, Value},
};
use crate::{place::Place, stream::Stream};

/// What the guard has, as an `O`, or what its maker has.
enum Held<'a, T, O = T> {
    Own(O),
    Borrowed(&'a T),
}

impl<T: Clone, O: Borrow<T> + From<T>> Held<'_, T, O> {
    #[inline]
    fn get(&self) -> &T {
        match self {
            Held::Own(own) => own.borrow(),
            Held::Borrowed(borrowed) => borrowed,
        }
    }

    fn into_owned(self) -> Held<'static, T, O> {
        match self {
            Held::Own(own) => Held::Own(own),
            Held::Borrowed(borrowed) => Held::Own(borrowed.clone().into()),
        }
    }
}

/// A span of a stream, which ends when this is dropped or [ended](Span::end), on whatever thread.
/// Made by [`Trace::span`].
///
/// ```
/// use fencepost::{Device, trace::Trace};
///
/// let (trace, stream) = (Trace::new(), Device::open("host")?.new_stream()?);
/// let span = trace.span("copy", &stream).with("bytes", 4096);
/// stream.launch(|| println!("work"))?;
/// span.end();
/// # Ok::<(), fencepost::Error>(())
/// ```
#[must_use = "the span ends when this is dropped"]
pub struct Span<'a> {
    /// `None` where nothing is recorded.
    recording: Option<Recording<'a>>,
}

struct Recording<'a> {
    trace: Held<'a, Trace>,
    /// In a box, so that a guard that borrows is small.
    stream: Held<'a, Stream, Box<Stream>>,
    /// `None` once it is ended.
    begun: Option<Begun<Pair>>,
    at: Place,
}

impl<'a> Span<'a> {
    pub(super) const NONE: Span<'a> = Span { recording: None };

    #[inline]
    pub(super) fn new(
        trace: &'a Trace,
        stream: &'a Stream,
        begun: Begun<Pair>,
        at: Place,
    ) -> Span<'a> {
        Span {
            recording: Some(Recording {
                trace: Held::Borrowed(trace),
                stream: Held::Borrowed(stream),
                begun: Some(begun),
                at,
            }),
        }
    }

    /// Adds an attribute: a number, a truth value or a text. Of values with one name the last
    /// counts.
    ///
    /// ```
    /// # use fencepost::{Device, trace::Trace};
    /// # let (trace, stream) = (Trace::new(), Device::open("host")?.new_stream()?);
    /// let span = trace.span("copy", &stream).with("bytes", 4096).with("to", "device");
    /// # drop(span);
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn with(self, name: &str, value: impl Into<Value>) -> Span<'a> {
        self.add(name, value.into());
        self
    }

    /// As [`with`](Span::with), for a span that is kept somewhere.
    ///
    /// ```
    /// # use fencepost::{Device, trace::Trace};
    /// # let (trace, stream) = (Trace::new(), Device::open("host")?.new_stream()?);
    /// let span = trace.span("decode", &stream);
    /// span.add("tokens", 17.into());
    /// # drop(span);
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn add(&self, name: &str, value: Value) {
        if let Some(recording) = &self.recording
            && recording.trace.get().is_ours()
            && let Some(begun) = &recording.begun
        {
            begun.pair.recorder.pending.note(begun.slot, name, value);
        }
    }

    /// The span with what it needs of its own, so that it may be kept as long as one likes.
    ///
    /// ```
    /// # use fencepost::{Device, trace::Trace};
    /// # let (trace, stream) = (Trace::new(), Device::open("host")?.new_stream()?);
    /// let span = trace.span("request", &stream).into_owned();
    /// std::thread::spawn(move || span.end()).join().unwrap();
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn into_owned(mut self) -> Span<'static> {
        let recording = self.recording.take();
        Span {
            recording: recording.map(|recording| Recording {
                trace: recording.trace.into_owned(),
                stream: recording.stream.into_owned(),
                begun: recording.begun,
                at: recording.at,
            }),
        }
    }

    /// Ends the span behind everything submitted to its stream so far, as dropping it does. Never
    /// waits for the device.
    ///
    /// ```
    /// # use fencepost::{Device, trace::Trace};
    /// # let (trace, stream) = (Trace::new(), Device::open("host")?.new_stream()?);
    /// trace.span("copy", &stream).end();
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    #[inline]
    pub fn end(self) {}
}

impl Drop for Span<'_> {
    #[inline]
    fn drop(&mut self) {
        // In place, since to move it all out takes longer.
        let Some(recording) = &mut self.recording else {
            return;
        };
        let Some(begun) = recording.begun.take() else {
            return;
        };
        let trace = recording.trace.get();
        if !trace.is_ours() {
            // Of the parent of this process: nothing of it is touched.
            std::mem::forget(begun);
            return;
        }
        let end = &begun.pair.end;
        let ended = end.record_at(recording.stream.get(), recording.at);
        trace.ended(recording.stream.get(), begun, ended);
    }
}

impl fmt::Debug for Span<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stream = self
            .recording
            .as_ref()
            .map(|recording| recording.stream.get());
        f.debug_tuple("Span").field(&stream).finish()
    }
}

/// A mark on a stream, to which attributes may be added until it is dropped. Made by
/// [`Trace::instant`].
///
/// ```
/// use fencepost::{Device, trace::Trace};
///
/// let (trace, stream) = (Trace::new(), Device::open("host")?.new_stream()?);
/// trace.instant("checkpoint", &stream).with("step", 3);
/// # Ok::<(), fencepost::Error>(())
/// ```
pub struct Moment {
    /// `None` where nothing is recorded.
    recording: Option<(Trace, Begun<Pair>)>,
}

impl Moment {
    pub(super) fn new(recording: Option<(Trace, Begun<Pair>)>) -> Moment {
        Moment { recording }
    }

    /// Adds an attribute. Of values with one name the last counts.
    ///
    /// ```
    /// # use fencepost::{Device, trace::Trace};
    /// # let (trace, stream) = (Trace::new(), Device::open("host")?.new_stream()?);
    /// trace.instant("checkpoint", &stream).with("step", 3).with("kind", "full");
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    #[allow(clippy::must_use_candidate, clippy::return_self_not_must_use)]
    pub fn with(self, name: &str, value: impl Into<Value>) -> Moment {
        if let Some((trace, begun)) = &self.recording
            && trace.is_ours()
        {
            let pending = &begun.pair.recorder.pending;
            pending.note(begun.slot, name, value.into());
        }
        self
    }
}

impl Drop for Moment {
    fn drop(&mut self) {
        let Some((trace, begun)) = self.recording.take() else {
            return;
        };
        match trace.is_ours() {
            true => trace.ended_far(begun),
            false => std::mem::forget(begun),
        }
    }
}

impl fmt::Debug for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Moment")
    }
}

/// A span of a thread, which ends when this is dropped or [ended](HostSpan::end). Made by
/// [`Trace::host_span`].
///
/// It is of the thread that began it, also where another one ends it. Spans of a thread nest as
/// long as they are ended in the reverse order; one that does not is drawn beside the others.
///
/// ```
/// use fencepost::trace::Trace;
///
/// let trace = Trace::new();
/// let step = trace.host_span("step").with("number", 3);
/// trace.host_span("load").end();
/// step.end();
/// ```
#[must_use = "the span ends when this is dropped"]
pub struct HostSpan<'a> {
    /// `None` where nothing is recorded.
    recording: Option<HostRecording<'a>>,
}

struct HostRecording<'a> {
    trace: Held<'a, Trace>,
    track: u32,
    name: Name,
    attributes: Attributes,
    /// The last that is read before the span, and read first after it.
    start: Instant,
}

impl<'a> HostSpan<'a> {
    #[inline]
    pub(super) fn new(trace: &'a Trace, begun: Option<(u32, Name)>) -> HostSpan<'a> {
        let make = |(track, name)| HostRecording {
            trace: Held::Borrowed(trace),
            track,
            name,
            attributes: None,
            start: Instant::now(),
        };
        HostSpan {
            recording: begun.map(make),
        }
    }

    /// Adds an attribute: a number, a truth value or a text. Of values with one name the last
    /// counts.
    ///
    /// ```
    /// # let trace = fencepost::trace::Trace::new();
    /// trace.host_span("tokenize").with("tokens", 17).end();
    /// ```
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> HostSpan<'a> {
        self.add(name, value.into());
        self
    }

    /// As [`with`](HostSpan::with), for a span that is kept somewhere.
    ///
    /// ```
    /// # let trace = fencepost::trace::Trace::new();
    /// let mut span = trace.host_span("tokenize");
    /// span.add("tokens", 17.into());
    /// # drop(span);
    /// ```
    pub fn add(&mut self, name: &str, value: Value) {
        if let Some(recording) = &mut self.recording {
            value::note(&mut recording.attributes, name, value);
        }
    }

    /// The span with what it needs of its own, so that it may be kept as long as one likes.
    ///
    /// ```
    /// # let trace = fencepost::trace::Trace::new();
    /// let span = trace.host_span("request").into_owned();
    /// std::thread::spawn(move || span.end()).join().unwrap();
    /// ```
    pub fn into_owned(mut self) -> HostSpan<'static> {
        let recording = self.recording.take();
        HostSpan {
            recording: recording.map(|recording| HostRecording {
                trace: recording.trace.into_owned(),
                track: recording.track,
                name: recording.name,
                attributes: recording.attributes,
                start: recording.start,
            }),
        }
    }

    /// Ends the span, as dropping it does.
    ///
    /// ```
    /// # let trace = fencepost::trace::Trace::new();
    /// trace.host_span("load").end();
    /// ```
    #[inline]
    pub fn end(self) {}
}

impl Drop for HostSpan<'_> {
    #[inline]
    fn drop(&mut self) {
        // In place, since to move it all out takes longer.
        let Some(recording) = &mut self.recording else {
            return;
        };
        let end = Instant::now();
        let trace = recording.trace.get();
        if !trace.is_ours() {
            return;
        }
        let shared = trace.shared();
        let (start, length) = shared.origin.place(recording.start, end);
        match (&mut recording.name, recording.attributes.take()) {
            (Name::Known(name), None) => {
                shared.plain(Record::of_thread(recording.track, *name, start, length));
            }
            (name, attributes) => shared.host(HostRecord {
                track: recording.track,
                start,
                length,
                name: std::mem::replace(name, Name::Known(0)),
                attributes,
                mark: None,
            }),
        }
    }
}

impl fmt::Debug for HostSpan<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |recording: &HostRecording<'_>| match &recording.name {
            // In a forked child a thread of the parent may have the lock.
            Name::Known(number) if recording.trace.get().is_ours() => {
                recording.trace.get().shared().names.get(*number)
            }
            Name::Known(_) => None,
            Name::Other(text) => Some(text.get().into()),
        };
        let name = self.recording.as_ref().and_then(shown);
        f.debug_tuple("HostSpan").field(&name).finish()
    }
}
