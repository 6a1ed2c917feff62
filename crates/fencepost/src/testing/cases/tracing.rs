//! Spans of streams and of threads, on one axis.

use std::time::Instant;

use super::case;
use crate::{
    contract::Backend,
    error::{Error, Result},
    gate::Gate,
    stream::Stream,
    testing::{
        Case,
        context::{Context, Stop, Verdict, check},
        work,
    },
    trace::{
        Options, Summary, Trace,
        picture::{ArrowEnd, Kind, On, Picture, Slice, State, Value},
    },
};

pub(super) const CASES: &[Case] = &[
    case!("span", spans_of_a_stream_nest_in_its_order, [SpanEndsEarly]),
    case!(
        "span",
        a_span_lies_between_reads_of_the_hosts_clock,
        [CorrelationOff]
    ),
    case!("span", a_span_is_as_long_as_its_work, []),
    case!("span", spans_of_streams_and_threads_are_on_one_axis, []),
    case!(
        "span",
        recording_a_span_does_not_wait_for_the_device,
        [RecordBlocks]
    ),
    case!(
        "span",
        a_span_of_a_failed_stream_has_failed,
        [FailureLooksPending, SpanEndsEarly]
    ),
    case!("span", a_span_that_is_not_over_is_unfinished, []),
    case!("span", a_span_may_end_on_another_thread, []),
    case!("span", spans_beyond_the_budget_are_dropped_and_counted, []),
    case!("span", the_oldest_spans_beyond_the_capacity_are_dropped, []),
    case!("span", marks_and_attributes_are_kept, []),
    case!(
        "arrow",
        a_wait_is_an_arrow_from_span_to_span,
        [ArrowOfAnotherWait]
    ),
    case!(
        "arrow",
        a_wait_within_a_span_points_into_it,
        [ArrowOfAnotherWait]
    ),
    case!("arrow", an_arrow_of_a_gate_begins_where_it_was_opened, []),
];

/// What there is once so many spans are finished: a device may show a time late.
fn finished(c: &Context, trace: &Trace, count: usize) -> Result<Picture, Stop> {
    let begin = Instant::now();
    loop {
        let summary = trace.collect();
        if summary.finished == count {
            return Ok(c.picture(trace));
        }
        check!(
            begin.elapsed() < c.options.patience && summary.finished < count,
            "{summary}, and not {count} finished"
        );
        std::thread::yield_now();
    }
}

fn name<'a>(picture: &'a Picture, slice: &Slice) -> &'a str {
    &picture.texts[slice.name as usize]
}

fn slice<'a>(picture: &'a Picture, wanted: &str) -> Result<&'a Slice, Stop> {
    let found = picture
        .slices
        .iter()
        .find(|slice| name(picture, slice) == wanted);
    found.ok_or_else(|| Stop::Broken(format!("there is no span {wanted:?}")))
}

/// Queues work of a while, by the device's clock: that of a stand-in may run ahead of the host's by
/// as much.
fn spin(stream: &Stream) -> Result<()> {
    work::spin(stream, 200_000)
}

fn summary_is(summary: &Summary, expected: [usize; 4]) -> Verdict {
    let dropped = summary.dropped as usize;
    let counts = [
        summary.finished,
        summary.failed,
        summary.unfinished,
        dropped,
    ];
    check!(counts == expected, "{summary}, and not {expected:?}");
    Ok(())
}

fn spans_of_a_stream_nest_in_its_order(c: &Context) -> Verdict {
    let (trace, stream) = (Trace::new(), c.stream()?);
    for _ in 0..3 {
        c.scope(&trace, "outer", &stream, || {
            spin(&stream)?;
            c.scope(&trace, "first", &stream, || spin(&stream))?;
            c.scope(&trace, "second", &stream, || {
                c.scope(&trace, "inner", &stream, || spin(&stream))
            })
        })?;
        // A Metal stream has a budget of 8 spans.
        c.stream_done(&stream)?;
        let _ = trace.collect();
    }
    let picture = finished(c, &trace, 12)?;
    let names: Vec<_> = picture
        .slices
        .iter()
        .map(|slice| name(&picture, slice))
        .collect();
    let expected = ["outer", "first", "second", "inner"];
    check!(
        names == expected.repeat(3),
        "they are in the order {names:?}"
    );
    for step in picture.slices.chunks_exact(4) {
        for slice in step {
            check!(slice.state == State::Complete, "{slice:?} is not complete");
            check!(slice.start <= slice.end, "{slice:?} ends before it begins");
        }
        let [outer, first, second, inner] = step else {
            continue;
        };
        let nests = |out: &Slice, inn: &Slice| out.start <= inn.start && inn.end <= out.end;
        check!(
            nests(outer, first) && nests(outer, second),
            "no nesting: {step:?}"
        );
        check!(nests(second, inner), "no nesting: {step:?}");
        check!(first.end <= second.start, "the second is earlier: {step:?}");
    }
    for pair in picture
        .slices
        .chunks_exact(4)
        .collect::<Vec<_>>()
        .windows(2)
    {
        check!(
            pair[0][0].end <= pair[1][0].start,
            "the next step is earlier: {pair:?}"
        );
    }
    let track = &picture.tracks[picture.slices[0].track as usize];
    let device = c.device.name().to_owned();
    check!(
        track.kind == Kind::Stream { device },
        "it is of another device: {track:?}"
    );
    Ok(())
}

fn a_span_lies_between_reads_of_the_hosts_clock(c: &Context) -> Verdict {
    let (trace, stream) = (Trace::new(), c.stream()?);
    let before = Trace::on_axis(Instant::now());
    trace.span("work", &stream).end();
    c.stream_done(&stream)?;
    let after = Trace::on_axis(Instant::now());
    let picture = finished(c, &trace, 1)?;
    let slice = slice(&picture, "work")?;
    // Two readings of the host's clocks, and rounding.
    let slack = i64::from(slice.uncertainty) + 20_000;
    check!(
        slice.start >= before - slack && slice.end <= after + slack,
        "{slice:?} is not within {before} and {after}"
    );
    Ok(())
}

fn a_span_is_as_long_as_its_work(c: &Context) -> Verdict {
    let (trace, stream) = (Trace::new(), c.stream()?);
    // On a loaded machine nothing may take long, too, but not always.
    let begin = Instant::now();
    for round in 1.. {
        c.scope(&trace, "nothing", &stream, || ());
        c.scope(&trace, "work", &stream, || work::spin(&stream, 2_000_000))?;
        c.stream_done(&stream)?;
        let picture = finished(c, &trace, 2 * round)?;
        let lengths = picture.slices.iter().map(|slice| slice.end - slice.start);
        let lengths: Vec<_> = lengths.collect();
        if lengths.chunks_exact(2).any(|pair| pair[0] < pair[1]) {
            break;
        }
        check!(
            begin.elapsed() < c.options.patience,
            "nothing takes as long: {lengths:?}"
        );
    }
    Ok(())
}

fn spans_of_streams_and_threads_are_on_one_axis(c: &Context) -> Verdict {
    let (trace, one, two) = (Trace::new(), c.stream()?, c.stream()?);
    let step = trace.host_span("step");
    trace.span("one", &one).end();
    c.stream_done(&one)?;
    trace.host_span("between").end();
    trace.span("two", &two).end();
    c.stream_done(&two)?;
    step.end();
    let picture = finished(c, &trace, 4)?;
    let names = ["step", "one", "between", "two"];
    let mut slices = Vec::new();
    for name in names {
        slices.push(slice(&picture, name)?);
    }
    for pair in slices[1..].windows(2) {
        let slack = i64::from(pair[0].uncertainty) + i64::from(pair[1].uncertainty);
        check!(
            pair[0].end <= pair[1].start + slack,
            "they are out of order: {pair:?}"
        );
    }
    let is_thread = |slice: &Slice| {
        matches!(
            picture.tracks[slice.track as usize].kind,
            Kind::Thread { .. }
        )
    };
    let kinds: Vec<_> = slices.iter().map(|slice| is_thread(slice)).collect();
    check!(
        kinds == [true, false, true, false],
        "they are on other tracks: {kinds:?}"
    );
    check!(
        slices[0].track == slices[2].track,
        "a thread has two tracks"
    );
    check!(
        picture.tracks.len() == 3,
        "the tracks are {:?}",
        picture.tracks
    );
    Ok(())
}

fn recording_a_span_does_not_wait_for_the_device(c: &Context) -> Verdict {
    let (trace, stream) = (Trace::new(), c.stream()?);
    let gate = c.gate(&stream)?;
    let last = {
        let _outer = trace.span("outer", &stream);
        trace.span("inner", &stream).end();
        trace.instant("mark", &stream);
        stream.record()?
    };
    c.still_pending(&last, "the gate is closed")?;
    summary_is(&trace.collect(), [0, 0, 3, 0])?;
    let states = trace
        .picture()
        .slices
        .iter()
        .map(|slice| slice.state)
        .collect::<Vec<_>>();
    check!(
        states == [State::Unfinished; 2],
        "behind a closed gate they are {states:?}"
    );
    gate.open();
    c.stream_done(&stream)?;
    finished(c, &trace, 3)?;
    Ok(())
}

fn a_span_of_a_failed_stream_has_failed(c: &Context) -> Verdict {
    let (trace, stream) = (Trace::new(), c.stream()?);
    c.scope(&trace, "good", &stream, || spin(&stream))?;
    c.stream_done(&stream)?;
    let (outer, gate) = (trace.span("outer", &stream), c.gate(&stream)?);
    c.scope(&trace, "bad", &stream, || {
        c.fail(&stream, "a fault of the case")
    })?;
    outer.end();
    gate.open();
    let failed = c.stream_done(&stream);
    c.is_failure(failed, "a fault of the case")?;
    trace.span("after", &stream).end();
    let begin = Instant::now();
    while trace.collect().failed < 3 {
        let summary = trace.summary();
        check!(
            begin.elapsed() < c.options.patience,
            "{summary}, and not 3 failed"
        );
    }
    summary_is(&trace.summary(), [1, 3, 0, 0])?;
    let picture = trace.picture();
    for name in ["outer", "bad", "after"] {
        let State::Failed(text) = slice(&picture, name)?.state else {
            return Err(Stop::Broken(format!("{name:?} has not failed")));
        };
        let text = &picture.texts[text as usize];
        check!(
            text.contains("a fault of the case"),
            "{name:?} failed by {text:?}"
        );
    }
    check!(
        slice(&picture, "good")?.state == State::Complete,
        "what was before failed too"
    );
    let (outer, bad) = (slice(&picture, "outer")?, slice(&picture, "bad")?);
    check!(
        outer.start <= bad.start && bad.end <= outer.end,
        "{outer:?}, and in it {bad:?}"
    );
    Ok(())
}

fn a_span_that_is_not_over_is_unfinished(c: &Context) -> Verdict {
    let (trace, stream) = (Trace::new(), c.stream()?);
    let open = trace.span("open", &stream).with("step", 7);
    c.scope(&trace, "inner", &stream, || spin(&stream))?;
    c.stream_done(&stream)?;
    let picture = finished(c, &trace, 1)?;
    let (slice, inner) = (slice(&picture, "open")?, slice(&picture, "inner")?);
    check!(slice.state == State::Unfinished, "{slice:?}");
    check!(
        slice.start <= inner.start && inner.end <= slice.end,
        "{slice:?}, and in it {inner:?}"
    );
    check!(slice.attributes.len() == 1, "its attribute is missing");
    summary_is(&trace.summary(), [1, 0, 1, 0])?;
    open.end();
    c.stream_done(&stream)?;
    finished(c, &trace, 2)?;
    Ok(())
}

fn a_span_may_end_on_another_thread(c: &Context) -> Verdict {
    let (trace, stream) = (Trace::new(), c.stream()?);
    let span = trace.span("work", &stream).into_owned();
    let host = trace.host_span("host").into_owned();
    let ended = std::thread::spawn(move || {
        span.end();
        host.end();
    });
    check!(ended.join().is_ok(), "the other thread panicked");
    c.stream_done(&stream)?;
    let picture = finished(c, &trace, 2)?;
    let track = &picture.tracks[slice(&picture, "host")?.track as usize];
    let this = std::thread::current();
    check!(
        this.name().is_none_or(|name| name == track.name),
        "it is on the track of {:?}, and was begun on {:?}",
        track.name,
        this.name()
    );
    Ok(())
}

fn spans_beyond_the_budget_are_dropped_and_counted(c: &Context) -> Verdict {
    let options = Options::default().pending(4);
    let (trace, stream) = (Trace::with_options(options), c.stream()?);
    let gate = c.gate(&stream)?;
    for _ in 0..6 {
        trace.span("work", &stream).end();
    }
    summary_is(&trace.collect(), [0, 0, 4, 2])?;
    check!(trace.picture().dropped == 2, "the picture does not say so");
    gate.open();
    c.stream_done(&stream)?;
    finished(c, &trace, 4)?;
    // There is room again.
    trace.span("work", &stream).end();
    c.stream_done(&stream)?;
    finished(c, &trace, 5)?;
    summary_is(&trace.summary(), [5, 0, 0, 2])
}

fn the_oldest_spans_beyond_the_capacity_are_dropped(c: &Context) -> Verdict {
    let options = Options::default().capacity(3);
    let (trace, stream) = (Trace::with_options(options), c.stream()?);
    for number in 0..5 {
        trace.span(&format!("work {number}"), &stream).end();
        c.stream_done(&stream)?;
        finished(c, &trace, 3.min(number + 1))?;
        let begin = Instant::now();
        while trace.collect().unfinished > 0 {
            check!(begin.elapsed() < c.options.patience, "{}", trace.summary());
        }
    }
    summary_is(&trace.summary(), [3, 0, 0, 2])?;
    let picture = trace.picture();
    let names: Vec<_> = picture
        .slices
        .iter()
        .map(|slice| name(&picture, slice))
        .collect();
    check!(
        names == ["work 2", "work 3", "work 4"],
        "what is left is {names:?}"
    );
    Ok(())
}

fn marks_and_attributes_are_kept(c: &Context) -> Verdict {
    let (trace, stream) = (Trace::new(), c.stream()?);
    trace
        .span("copy", &stream)
        .with("bytes", 4096)
        .with("to", "device")
        .end();
    trace.instant("mark", &stream).with("ratio", 0.5);
    trace.host_instant("signal");
    c.stream_done(&stream)?;
    let picture = finished(c, &trace, 3)?;
    let text = |number: u32| &*picture.texts[number as usize];
    let told = |range: &std::ops::Range<u32>| {
        let attributes = &picture.attributes[range.start as usize..range.end as usize];
        let words = attributes.iter().map(|attribute| match attribute.value {
            Value::Text(value) => format!("{}: {}", text(attribute.name), text(value)),
            value => format!("{}: {value:?}", text(attribute.name)),
        });
        words.collect::<Vec<_>>().join(", ")
    };
    let copy = told(&slice(&picture, "copy")?.attributes);
    check!(
        copy == "bytes: Signed(4096), to: device",
        "the span has {copy:?}"
    );
    let marks: Vec<_> = picture.marks.iter().map(|mark| text(mark.name)).collect();
    check!(marks == ["mark", "signal"], "the marks are {marks:?}");
    let mark = told(&picture.marks[0].attributes);
    check!(mark == "ratio: Float(0.5)", "the mark has {mark:?}");
    let span = slice(&picture, "copy")?;
    check!(
        span.end <= picture.marks[0].time,
        "the mark is before the span"
    );
    Ok(())
}

/// The names of the spans at the ends of the arrows, and their times.
fn arrows(picture: &Picture) -> Vec<[(&str, i64); 2]> {
    let end = |end: &ArrowEnd| {
        let name = match end.on {
            On::Slice(index) => picture.slices[index as usize].name,
            On::Mark(index) => picture.marks[index as usize].name,
        };
        (&*picture.texts[name as usize], end.time)
    };
    picture
        .arrows
        .iter()
        .map(|arrow| [end(&arrow.from), end(&arrow.to)])
        .collect()
}

fn names<'a>(arrows: &[[(&'a str, i64); 2]]) -> Vec<[&'a str; 2]> {
    arrows.iter().map(|arrow| arrow.map(|end| end.0)).collect()
}

fn a_wait_is_an_arrow_from_span_to_span(c: &Context) -> Verdict {
    let (trace, load, compute) = (Trace::new(), c.stream()?, c.stream()?);
    let event = c.event();
    for round in 0..3 {
        c.scope(&trace, "load", &load, || spin(&load))?;
        match round {
            0 => {
                event.record(&load)?;
                event.wait(&compute)?;
            }
            1 => compute.wait(&load.record()?)?,
            _ => {
                event.record(&load)?;
                // A wait for what is complete is a wait.
                c.event_done(&event)?;
                check!(event.query()?, "it is not complete");
                compute.wait_event(&event)?;
                // A stream that waits for itself is none.
                load.wait_event(&event)?;
            }
        }
        c.scope(&trace, "compute", &compute, || spin(&compute))?;
        c.scope(&trace, "more", &compute, || spin(&compute))?;
    }
    c.stream_done(&compute)?;
    let picture = finished(c, &trace, 9)?;
    let arrows = arrows(&picture);
    check!(
        names(&arrows) == [["load", "compute"]; 3],
        "the arrows are {arrows:?}"
    );
    for (arrow, found) in picture.arrows.iter().zip(&arrows) {
        let (On::Slice(from), On::Slice(to)) = (arrow.from.on, arrow.to.on) else {
            return Err(Stop::Broken(format!("{found:?} is not at slices")));
        };
        let (from, to) = (&picture.slices[from as usize], &picture.slices[to as usize]);
        check!(
            found[0].1 == from.end && found[1].1 == to.start,
            "{found:?}: {from:?}, {to:?}"
        );
        check!(found[0].1 <= found[1].1, "it goes back in time: {found:?}");
    }
    // Where the loads are over before the first computation, one that begins at another wait's load
    // goes forward, too.
    let of = |wanted: &'static str, time: fn(&Slice) -> i64| {
        let slices = picture.slices.iter();
        let mut times: Vec<_> = slices
            .filter(|slice| name(&picture, slice) == wanted)
            .map(time)
            .collect();
        times.sort_unstable();
        times
    };
    let ends = of("load", |slice| slice.end);
    let expected: Vec<_> = ends
        .into_iter()
        .zip(of("compute", |slice| slice.start))
        .collect();
    let mut told: Vec<_> = arrows.iter().map(|[from, to]| (from.1, to.1)).collect();
    told.sort_unstable();
    check!(told == expected, "{told:?} in place of {expected:?}");
    Ok(())
}

fn a_wait_within_a_span_points_into_it(c: &Context) -> Verdict {
    let (trace, load, compute) = (Trace::new(), c.stream()?, c.stream()?);
    let outer = trace.span("outer", &compute);
    let marker = {
        let _load = trace.span("load", &load);
        load.record()?
    };
    compute.wait(&marker)?;
    outer.end();
    // No span is here, and none behind the wait.
    let (plain, bare) = (c.stream()?, c.stream()?);
    plain.wait(&marker)?;
    bare.wait(&plain.record()?)?;
    compute.wait(&plain.record()?)?;
    trace.span("last", &compute).end();
    for stream in [&compute, &bare] {
        c.stream_done(stream)?;
    }
    let picture = finished(c, &trace, 3)?;
    let arrows = arrows(&picture);
    let expected = [
        ["load", "outer"],
        ["load", "wait"],
        ["awaited marker", "last"],
    ];
    let mut found = names(&arrows);
    found.sort_unstable_by_key(|names| expected.iter().position(|e| e == names));
    check!(found == expected, "the arrows are {arrows:?}");
    Ok(())
}

fn an_arrow_of_a_gate_begins_where_it_was_opened(c: &Context) -> Verdict {
    let (trace, stream) = (Trace::new(), c.stream()?);
    let gate = match Gate::with_limit(&c.device, c.options.patience) {
        Err(Error::Unsupported { what, .. }) => return Err(Stop::Skip(what)),
        gate => gate?,
    };
    gate.set_name("start");
    gate.wait(&stream)?;
    c.scope(&trace, "work", &stream, || spin(&stream))?;
    let before = Trace::on_axis(Instant::now());
    gate.open();
    let after = Trace::on_axis(Instant::now());
    c.stream_done(&stream)?;
    let picture = finished(c, &trace, 1)?;
    let arrows = arrows(&picture);
    let [[from, to]] = arrows[..] else {
        return Err(Stop::Broken(format!("the arrows are {arrows:?}")));
    };
    check!(
        from.0.starts_with("open gate ") && from.0.ends_with("\"start\""),
        "{from:?}"
    );
    check!(to.0 == "work", "it points to {to:?}");
    let slack = 20_000;
    check!(
        (before - slack..=after + slack).contains(&from.1),
        "it was opened within {before} and {after}, and that says {}",
        from.1
    );
    if c.device.backend() != Backend::Host {
        return Ok(());
    }
    check!(from.1 <= to.1, "it goes back in time: {arrows:?}");
    Ok(())
}
