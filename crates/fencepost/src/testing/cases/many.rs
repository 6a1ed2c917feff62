//! Waiting for many: the first of them, all, or one after the other.

use std::{
    sync::{Arc, Barrier, mpsc},
    time::Duration,
};

use super::case;
use crate::{
    error::{Error, Result},
    marker::Marker,
    testing::{
        Case,
        context::{Context, Stop, Verdict, check, check_error, for_both_kinds},
    },
    wait::{
        WaitSet, Waitable, synchronize_all, synchronize_all_timeout, synchronize_any,
        synchronize_any_timeout,
    },
};

pub(super) const CASES: &[Case] = &[
    case!(
        "wait for many",
        the_first_of_many_is_the_one_that_ended,
        [FirstOfManyIsAnother, QueryAlwaysTrue, RecordNotSubmitted]
    ),
    case!(
        "wait for many",
        all_of_many_are_complete_with_the_last,
        [LastOfManyForgotten, QueryAlwaysTrue, RecordNotSubmitted]
    ),
    case!(
        "wait for many",
        many_may_be_of_several_devices,
        [FirstOfManyIsAnother, LastOfManyForgotten]
    ),
    case!(
        "wait for many",
        a_failure_ends_a_wait_for_all_at_once,
        [FailureOfManySwallowed]
    ),
    case!(
        "wait for many",
        a_failure_may_be_the_first_to_end,
        [FailureOfManySwallowed, FirstOfManyIsAnother]
    ),
    case!("wait for many", none_of_many_is_answered_at_once, []),
    case!(
        "wait for many",
        unrecorded_events_are_complete_among_many,
        []
    ),
    case!(
        "wait for many",
        a_timeout_of_many_tells_what_is_left,
        [QueryAlwaysTrue]
    ),
    case!(
        "wait for many",
        a_set_tells_of_each_once,
        [SetTellsTheFirstAgain, RecordNotSubmitted]
    ),
    case!(
        "wait for many",
        a_set_takes_more_while_it_is_waited_for,
        [SetTellsTheFirstAgain, QueryAlwaysTrue]
    ),
    case!("wait for many", a_set_tells_of_failures, [QueryAlwaysTrue]),
    case!(
        "wait for many",
        what_has_ended_comes_behind_what_was_pending_before,
        [QueryAlwaysTrue]
    ),
    case!(
        "wait for many",
        many_markers_of_few_streams_come_in_their_order,
        [SetTellsTheFirstAgain]
    ),
    case!(
        "wait for many in host work",
        host_work_that_waits_for_itself_among_all_is_refused,
        []
    ),
    case!(
        "wait for many in host work",
        host_work_may_wait_for_the_first_of_itself_and_others,
        []
    ),
    case!(
        "wait for many in host work",
        host_work_that_can_only_wait_for_itself_is_refused,
        []
    ),
    case!(
        "wait for many in host work",
        circles_of_waits_for_many_are_refused,
        []
    ),
];

fn the_first_of_many_is_the_one_that_ended(c: &Context) -> Verdict {
    for_both_kinds(|record| {
        let (one, two, three) = (c.stream()?, c.stream()?, c.stream()?);
        c.apart(&[&one, &two, &three])?;
        let gates = [c.gate(&one)?, c.gate(&two)?, c.gate(&three)?];
        let event = c.event();
        event.record(&two)?;
        let (first, last) = (record(&one)?, record(&three)?);
        let many: [&dyn Waitable; 3] = [&first, &event, &last];
        check_error!(
            synchronize_any_timeout(many, c.options.moment),
            Error::Timeout(_),
            "all of them are behind closed gates"
        );
        let [gate_one, gate_two, gate_three] = gates;
        gate_two.open();
        let (index, ended) = c.first(&many)?;
        check!(
            index == 1,
            "the one at 1 has ended, but it tells of {index}"
        );
        ended?;
        gate_three.open();
        c.done(&last)?;
        let (index, ended) = c.first(&[&first, &last])?;
        check!(
            index == 1,
            "the one at 1 is complete, but it tells of {index}"
        );
        ended?;
        gate_one.open();
        c.done(&first)?;
        Ok(())
    })
}

fn all_of_many_are_complete_with_the_last(c: &Context) -> Verdict {
    for_both_kinds(|record| {
        let (one, two) = (c.stream()?, c.stream()?);
        c.apart(&[&one, &two])?;
        let (gate_one, gate_two) = (c.gate(&one)?, c.gate(&two)?);
        let event = c.event();
        event.record(&one)?;
        let last = record(&two)?;
        let many: [&dyn Waitable; 2] = [&event, &last];
        gate_one.open();
        c.event_done(&event)?;
        check_error!(
            c.all_within(&many, c.options.moment),
            Error::Timeout(_),
            "the last of them is behind a closed gate"
        );
        let opener = std::thread::spawn({
            let moment = c.options.moment;
            move || {
                std::thread::sleep(moment);
                gate_two.open();
            }
        });
        let all = c.all(&many);
        let _ = opener.join();
        all?;
        check!(last.query()?, "the wait is over, but the last is pending");
        Ok(())
    })
}

fn many_may_be_of_several_devices(c: &Context) -> Verdict {
    let stream = c.stream()?;
    let gate = c.gate(&stream)?;
    let ours = stream.record()?;
    let (host_gate, host) = c.host_marker(None)?;
    check_error!(
        synchronize_any_timeout([&ours, &host], c.options.moment),
        Error::Timeout(_),
        "both are behind closed gates"
    );
    host_gate.open();
    let (index, ended) = c.first(&[&ours, &host])?;
    check!(
        index == 1,
        "the host's marker has ended, but it tells of {index}"
    );
    ended?;
    check_error!(
        c.all_within(&[&host, &ours], c.options.moment),
        Error::Timeout(_),
        "one is behind a closed gate"
    );
    gate.open();
    c.all(&[&host, &ours])?;
    Ok(())
}

fn a_failure_ends_a_wait_for_all_at_once(c: &Context) -> Verdict {
    let (held, failing) = (c.stream()?, c.stream()?);
    c.apart(&[&held, &failing])?;
    let gate = c.gate(&held)?;
    let pending = held.record()?;
    c.fail(&failing, "no more paper")?;
    let failed = failing.record()?;
    c.is_failure(c.all(&[&pending, &failed]), "no more paper")?;
    check!(!pending.query()?, "its gate is closed");
    gate.open();
    c.done(&pending)?;
    c.is_failure(c.all(&[&pending, &failed]), "no more paper")
}

fn a_failure_may_be_the_first_to_end(c: &Context) -> Verdict {
    let (held, failing) = (c.stream()?, c.stream()?);
    c.apart(&[&held, &failing])?;
    let gate = c.gate(&held)?;
    let pending = held.record()?;
    c.fail(&failing, "no more ink")?;
    let failed = failing.record()?;
    let (index, ended) = c.first(&[&pending, &failed])?;
    check!(
        index == 1,
        "the one at 1 has failed, but it tells of {index}"
    );
    c.is_failure(ended, "no more ink")?;
    gate.open();
    c.done(&pending)?;
    Ok(())
}

fn none_of_many_is_answered_at_once(c: &Context) -> Verdict {
    let none: [&Marker; 0] = [];
    check_error!(
        synchronize_any(none),
        Error::NothingToWaitFor { .. },
        "the first of none"
    );
    synchronize_all(none)?;
    synchronize_all_timeout(none, Duration::ZERO)?;
    let mut set = WaitSet::new();
    check!(c.next(&mut set, None)?.is_none(), "the set is empty");
    Ok(())
}

fn unrecorded_events_are_complete_among_many(c: &Context) -> Verdict {
    let stream = c.stream()?;
    let gate = c.gate(&stream)?;
    let (pending, unrecorded) = (stream.record()?, c.event());
    let (index, ended) = synchronize_any([&pending as &dyn Waitable, &unrecorded])?;
    check!(index == 1, "it tells of {index}");
    ended?;
    synchronize_all([&unrecorded, &unrecorded])?;
    gate.open();
    c.all(&[&unrecorded, &pending])?;
    Ok(())
}

fn a_timeout_of_many_tells_what_is_left(c: &Context) -> Verdict {
    const MANY: usize = 8;
    let mut gates = Vec::new();
    let mut markers = Vec::new();
    for _ in 0..MANY {
        let stream = c.stream()?;
        gates.push(c.gate(&stream)?);
        markers.push(stream.record()?);
    }
    let event = c.event();
    event.set_name("the last");
    event.set_marker(markers[MANY - 1].clone())?;
    let limit = c.options.moment;
    let told = |result: Result<()>| match result {
        Err(Error::Timeout(timeout)) => Ok(timeout),
        other => Err(Stop::Broken(format!("expected a timeout, got {other:?}"))),
    };
    let few = told(synchronize_all_timeout(&markers[..3], limit))?;
    check!(
        (few.others.len(), few.left_out) == (2, 0) && few.limit == limit,
        "of three it tells {few:?}"
    );
    let mut many: Vec<&dyn Waitable> = markers[..MANY - 1].iter().map(|m| m as _).collect();
    many.push(&event);
    let many = told(synchronize_any_timeout(many, limit).map(drop))?;
    check!(
        (many.others.len(), many.left_out) == (3, MANY - 4),
        "of eight it tells {many:?}"
    );
    let text = many.to_string();
    for part in [0, 1, MANY - 2, MANY - 1] {
        let part = markers[part].to_string();
        check!(text.contains(&part), "\"{part}\" is not in: {text}");
    }
    check!(
        text.contains("… 4 more …") && text.contains("(event \"the last\")"),
        "it does not tell of the others: {text}"
    );
    gates.into_iter().for_each(|gate| gate.open());
    synchronize_all_timeout(&markers, c.options.patience)?;
    Ok(())
}

/// What is left in a set, by the keys in the order in which they come.
fn rest(c: &Context, set: &mut WaitSet<u32>) -> Result<Vec<u32>, Stop> {
    let mut keys = Vec::new();
    while let Some((key, ended)) = c.next(set, keys.first().copied())? {
        ended?;
        keys.push(key);
    }
    Ok(keys)
}

fn a_set_tells_of_each_once(c: &Context) -> Verdict {
    for_both_kinds(|record| {
        let (one, two) = (c.stream()?, c.stream()?);
        let mut set = WaitSet::new();
        let gate = c.gate(&one)?;
        let event = c.event();
        event.record(&one)?;
        // Not in the order of the stream.
        let later = record(&one)?;
        set.insert(2, &later);
        set.insert(1, &event);
        set.insert(3, &later);
        set.insert(4, &record(&two)?);
        set.insert(5, &c.event());
        check!(set.len() == 5, "of five there are {}", set.len());
        gate.open();
        let keys = rest(c, &mut set)?;
        let of_one: Vec<_> = keys.iter().copied().filter(|key| *key < 4).collect();
        check!(of_one == [1, 2, 3], "those of one stream came as {keys:?}");
        let mut sorted = keys;
        sorted.sort_unstable();
        check!(sorted == [1, 2, 3, 4, 5], "what came was {sorted:?}");
        check!(set.is_empty(), "{} are left", set.len());
        Ok(())
    })
}

fn a_set_takes_more_while_it_is_waited_for(c: &Context) -> Verdict {
    let (one, two) = (c.stream()?, c.stream()?);
    c.apart(&[&one, &two])?;
    let (gate_one, gate_two) = (c.gate(&one)?, c.gate(&two)?);
    let mut set = WaitSet::new();
    let (early, late) = (one.record()?, one.record()?);
    set.insert(2, &late);
    for _ in 0..2 {
        check_error!(
            set.synchronize_next_timeout(c.options.moment),
            Error::Timeout(_),
            "it is behind a closed gate"
        );
    }
    // In front of the one that is waited for, and on another stream.
    set.insert(1, &early);
    set.insert(3, &two.record()?);
    gate_two.open();
    let first = c.next(&mut set, None)?.map(|(key, _)| key);
    check!(first == Some(3), "its gate is open, but {first:?} came");
    gate_one.open();
    let mut keys = vec![3];
    while let Some((key, ended)) = c.next(&mut set, Some(3))? {
        ended?;
        keys.push(key);
        if key == 2 && keys.len() == 3 {
            set.insert(4, &two.record()?);
        }
    }
    check!(keys == [3, 1, 2, 4], "they came as {keys:?}");
    Ok(())
}

fn a_set_tells_of_failures(c: &Context) -> Verdict {
    let (good, bad) = (c.stream()?, c.stream()?);
    let mut set = WaitSet::new();
    set.insert(1, &bad.record()?);
    c.stream_done(&bad)?;
    c.fail(&bad, "out of order")?;
    set.insert(2, &bad.record()?);
    set.insert(3, &bad.record()?);
    set.insert(4, &good.record()?);
    let mut failed = Vec::new();
    while let Some((key, ended)) = set.synchronize_next_timeout(c.options.patience)? {
        if ended.is_err() {
            c.is_failure(ended, "out of order")?;
            failed.push(key);
        }
    }
    check!(failed == [2, 3], "{failed:?} have failed");
    Ok(())
}

fn what_has_ended_comes_behind_what_was_pending_before(c: &Context) -> Verdict {
    for_both_kinds(|record| {
        let stream = c.stream()?;
        let mut set = WaitSet::new();
        let gate = c.gate(&stream)?;
        let early = c.event();
        early.record(&stream)?;
        let (middle, late) = (record(&stream)?, record(&stream)?);
        set.insert(1, &early);
        set.insert(3, &late);
        gate.open();
        c.done(&late)?;
        // It has ended, and so have the others, which nobody has asked for yet.
        set.insert(2, &middle);
        let keys = rest(c, &mut set)?;
        check!(keys == [1, 2, 3], "those of the stream came as {keys:?}");
        Ok(())
    })
}

fn many_markers_of_few_streams_come_in_their_order(c: &Context) -> Verdict {
    const EACH: u32 = 50;
    let streams = [c.stream()?, c.stream()?, c.stream()?, c.stream()?];
    let mut set = WaitSet::new();
    let mut gates = Vec::new();
    let mut all = Vec::new();
    for (stream, number) in streams.iter().zip(0..) {
        gates.push(c.gate(stream)?);
        for key in 0..EACH {
            let marker = stream.record()?;
            set.insert(number * EACH + key, &marker);
            all.push(marker);
        }
    }
    gates.into_iter().for_each(|gate| gate.open());
    synchronize_all_timeout(&all, c.options.patience)?;
    let unfinished = all
        .iter()
        .find(|marker| !matches!(marker.query(), Ok(true)));
    check!(unfinished.is_none(), "{unfinished:?} is not complete");
    let keys = rest(c, &mut set)?;
    for number in 0..4 {
        let range = number * EACH..(number + 1) * EACH;
        let of_one: Vec<_> = keys.iter().filter(|key| range.contains(key)).collect();
        let in_order = of_one.windows(2).all(|pair| pair[0] < pair[1]);
        check!(
            in_order && of_one.len() == EACH as usize,
            "those of one stream came as {of_one:?}"
        );
    }
    Ok(())
}

/// What `work` returns as host work of a stream of its own, which it is given with a marker of
/// another stream that is held until `work` is over or, with `opens`, a moment after it began.
fn in_work<T: Send + 'static>(
    c: &Context,
    opens: bool,
    work: impl FnOnce(&Marker, &Marker) -> T + Send + 'static,
) -> Result<T, Stop> {
    let (stream, other) = (c.stream()?, c.stream()?);
    let gate = c.gate(&other)?;
    let held = other.record()?;
    let (tell, told) = mpsc::channel();
    let own = stream.clone();
    stream.launch(move || {
        if let Ok(behind) = own.record() {
            drop(tell.send(work(&behind, &held)));
        }
    })?;
    if opens {
        c.moment();
        gate.open();
        return told
            .recv_timeout(c.options.patience)
            .map_err(|_| Stop::Broken("host work hangs".into()));
    }
    let result = told.recv_timeout(c.options.patience);
    gate.open();
    result.map_err(|_| Stop::Broken("host work hangs".into()))
}

fn host_work_that_waits_for_itself_among_all_is_refused(c: &Context) -> Verdict {
    c.needs_host_work()?;
    let all = in_work(c, false, |own, held| synchronize_all([held, own]))?;
    check_error!(all, Error::WouldDeadlock { .. }, "itself among all");
    let all = in_work(c, false, |own, held| {
        synchronize_all_timeout([held, own], Duration::from_secs(3600))
    })?;
    check_error!(
        all,
        Error::WouldDeadlock { .. },
        "itself among all, with a deadline far off"
    );
    Ok(())
}

fn host_work_may_wait_for_the_first_of_itself_and_others(c: &Context) -> Verdict {
    c.needs_host_work()?;
    let (index, ended) = in_work(c, true, |own, held| synchronize_any([own, held]))??;
    check!(index == 1, "it tells of {index}");
    ended?;
    let key = in_work(c, true, |own, held| {
        let mut set = WaitSet::new();
        set.insert(1, own);
        set.insert(2, held);
        let first = set.synchronize_next();
        // What is left comes after this work.
        (first, set.synchronize_next())
    })?;
    let (first, second) = key;
    check!(
        matches!(first?, Some((2, Ok(())))),
        "the held one ended first"
    );
    check_error!(
        second,
        Error::WouldDeadlock { .. },
        "what is left comes after the work"
    );
    Ok(())
}

fn host_work_that_can_only_wait_for_itself_is_refused(c: &Context) -> Verdict {
    c.needs_host_work()?;
    let other = c.stream()?;
    let any = in_work(c, false, move |own, _| {
        // Both come after this work: its own marker, and one of a stream that waits for it.
        other.wait(own)?;
        synchronize_any([own, &other.record()?])
    })?;
    check_error!(any, Error::WouldDeadlock { .. }, "nothing but itself");
    Ok(())
}

fn circles_of_waits_for_many_are_refused(c: &Context) -> Verdict {
    c.needs_host_work()?;
    type Wait = fn(&[Marker]) -> Result<()>;
    let waits: [Wait; 2] = [
        |many| synchronize_all(many),
        // Both of each two come after the other work.
        |many| synchronize_any(many).map(drop),
    ];
    for wait in waits {
        let (one, two) = (c.stream()?, c.stream()?);
        let barrier = Arc::new(Barrier::new(2));
        let (tell, told) = mpsc::channel();
        for (own, other) in [(&one, &two), (&two, &one)] {
            let (other, barrier, tell) = (other.clone(), barrier.clone(), tell.clone());
            let third = c.stream()?;
            own.launch(move || {
                barrier.wait();
                let many = other.record().and_then(|behind| {
                    third.wait(&behind)?;
                    Ok([third.record()?, behind])
                });
                let _ = tell.send(many.and_then(|many| wait(&many)));
            })?;
        }
        drop(tell);
        let mut refused = 0;
        for _ in 0..2 {
            match told.recv_timeout(c.options.patience) {
                Ok(Ok(())) => {}
                Ok(Err(Error::WouldDeadlock { .. })) => refused += 1,
                Ok(Err(other)) => return Err(other.into()),
                Err(_) => check!(false, "the circle hangs"),
            }
        }
        check!(refused >= 1, "neither wait was refused");
        c.stream_done(&one)?;
        c.stream_done(&two)?;
    }
    Ok(())
}
