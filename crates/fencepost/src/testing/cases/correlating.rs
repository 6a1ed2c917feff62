//! When markers completed, by the host's clock.

use std::time::{Duration, Instant};

use super::case;
use crate::{
    contract::Backend,
    correlation::{Correlation, HostTime},
    device::Device,
    error::Error,
    marker::Marker,
    testing::{
        Case,
        context::{Context, Stop, Verdict, check, check_error},
    },
};

pub(super) const CASES: &[Case] = &[
    case!(
        "host_time",
        a_host_time_lies_between_reads_of_the_hosts_clock,
        [CorrelationOff]
    ),
    case!(
        "host_time",
        host_times_of_two_devices_are_in_order,
        [CorrelationOff]
    ),
    case!(
        "host_time",
        host_times_along_a_stream_are_in_order_of_the_stream,
        []
    ),
    case!("host_time", a_host_time_needs_a_complete_timed_marker, []),
    case!("correlate", an_old_correlation_is_less_certain, []),
    case!("correlate", two_correlations_tell_the_drift, []),
    case!("correlate", a_correlation_waits_for_no_other_stream, []),
];

/// A timed marker that completed at a time between the two instants.
struct Seen {
    marker: Marker,
    before: Instant,
    after: Instant,
}

impl Seen {
    fn on(c: &Context, device: &Device) -> Result<Seen, Stop> {
        let stream = device.new_stream()?;
        let gate = c.gate(&stream)?;
        let marker = stream.record_timed()?;
        let before = Instant::now();
        gate.open();
        c.done(&marker)?;
        let after = Instant::now();
        Ok(Seen {
            marker,
            before,
            after,
        })
    }

    /// Its host time, which must fit what the host saw.
    fn fits(&self, correlation: &Correlation) -> Result<HostTime, Stop> {
        let time = self.marker.host_time(correlation)?;
        let since = |instant: Instant| signed(self.before, instant);
        check!(
            time.latest() >= self.before && time.earliest() <= self.after,
            "it completed within {:?}, and that says {:+.3} ms after the beginning of that, ±{:?} \
             ({correlation:?})",
            self.after - self.before,
            since(time.instant()),
            time.uncertainty()
        );
        Ok(time)
    }
}

/// The milliseconds from one instant to another.
fn signed(from: Instant, to: Instant) -> f64 {
    let forward = to.saturating_duration_since(from).as_secs_f64();
    (forward - from.saturating_duration_since(to).as_secs_f64()) * 1e3
}

fn a_host_time_lies_between_reads_of_the_hosts_clock(c: &Context) -> Verdict {
    let earlier = c.device.correlate()?;
    let seen = [Seen::on(c, &c.device)?, Seen::on(c, &c.device)?];
    let later = c.device.correlate()?;
    let line = later.with_drift_since(&earlier)?;
    for seen in &seen {
        for correlation in [&earlier, &later, &line] {
            seen.fits(correlation)?;
        }
    }
    Ok(())
}

fn host_times_of_two_devices_are_in_order(c: &Context) -> Verdict {
    let other = c.sibling().unwrap_or_else(|_| c.stranger());
    let (here, there) = (c.device.correlate()?, other.correlate()?);
    for [first, second] in [
        [(&c.device, &here), (&other, &there)],
        [(&other, &there), (&c.device, &here)],
    ] {
        let start = Seen::on(c, first.0)?;
        std::thread::sleep(Context::SPAN);
        let end = Seen::on(c, second.0)?;
        let times = (start.fits(first.1)?, end.fits(second.1)?);
        let took = times.0.elapsed(&times.1);
        let least = (end.before - start.after).as_secs_f64();
        let most = (end.after - start.before).as_secs_f64();
        let slack = (times.0.uncertainty() + times.1.uncertainty()).as_secs_f64();
        check!(
            (least - slack..=most + slack).contains(&took.as_secs_f64()),
            "they are from {least} s to {most} s apart, and that says {took}, within {slack} s"
        );
        check!(
            times.1.partial_cmp(&times.0) != Some(std::cmp::Ordering::Less),
            "the one that was recorded later is told to be the earlier one"
        );
    }
    Ok(())
}

fn host_times_along_a_stream_are_in_order_of_the_stream(c: &Context) -> Verdict {
    let (stream, correlation) = (c.stream()?, c.device.correlate()?);
    let markers: Vec<_> = (0..20)
        .map(|_| stream.record_timed())
        .collect::<Result<_, _>>()?;
    c.stream_done(&stream)?;
    let times: Vec<_> = markers
        .iter()
        .map(|marker| marker.host_time(&correlation))
        .collect::<Result<_, _>>()?;
    for pair in times.windows(2) {
        let step = pair[0].elapsed(&pair[1]);
        check!(!step.is_negative(), "{step} from one to the next");
    }
    Ok(())
}

fn a_host_time_needs_a_complete_timed_marker(c: &Context) -> Verdict {
    let (stream, correlation) = (c.stream()?, c.device.correlate()?);
    let foreign = c.stranger().correlate()?;
    let gate = c.gate(&stream)?;
    let (untimed, timed) = (stream.record()?, stream.record_timed()?);
    check_error!(
        untimed.host_time(&foreign),
        Error::TimingDisabled { .. },
        "without timing, pending, and by a correlation of another device"
    );
    check_error!(
        timed.host_time(&foreign),
        Error::DeviceMismatch { .. },
        "pending, and by a correlation of another device"
    );
    check_error!(
        timed.host_time(&correlation),
        Error::NotReady { .. },
        "pending"
    );
    check_error!(
        correlation.with_drift_since(&foreign),
        Error::DeviceMismatch { .. },
        "correlations of two devices"
    );
    gate.open();
    c.stream_done(&stream)?;
    timed.host_time(&correlation)?;
    Ok(())
}

fn an_old_correlation_is_less_certain(c: &Context) -> Verdict {
    let asked = Instant::now();
    let correlation = c.device.correlate()?;
    let got = Instant::now();
    check!(
        asked <= correlation.instant() && correlation.instant() <= got,
        "it is not of the time when it was taken"
    );
    check!(
        correlation.clock() == c.device.clock(),
        "it is of another clock: {}",
        correlation.clock()
    );
    check!(
        correlation.age() <= asked.elapsed(),
        "it is older than it is"
    );
    let mut last = correlation.uncertainty_at(correlation.instant());
    check!(
        last == correlation.uncertainty(),
        "{last:?} at its own instant"
    );
    for seconds in [1, 60, 3600] {
        let then = correlation.instant() + Duration::from_secs(seconds);
        let uncertainty = correlation.uncertainty_at(then);
        match c.device.backend() {
            Backend::Host => check!(
                uncertainty.is_zero(),
                "the host is not sure of its own clock"
            ),
            _ => check!(
                uncertainty > last,
                "after {seconds} s ±{uncertainty:?}, before that ±{last:?}"
            ),
        }
        last = uncertainty;
    }
    Ok(())
}

fn two_correlations_tell_the_drift(c: &Context) -> Verdict {
    let first = c.device.correlate()?;
    let last = loop {
        c.moment();
        let last = c.device.correlate()?;
        let errors = first.uncertainty() + last.uncertainty();
        // Far enough apart to tell more than what is taken for granted, whatever the machine does.
        let apart = last.instant() - first.instant();
        if errors.mul_f64(20_000.0) < apart || apart > Context::SPAN * 40 {
            break last;
        }
    };
    let line = last.with_drift_since(&first)?;
    check!(
        line.drift_bound_ppm() <= first.drift_bound_ppm(),
        "two tell less than one: ±{} ppm",
        line.drift_bound_ppm()
    );
    let most = first.drift_bound_ppm() + line.drift_bound_ppm();
    check!(
        line.drift_ppm().abs() <= most,
        "{} ppm, more than the {most} that are taken to be the most",
        line.drift_ppm()
    );
    let same = last.with_drift_since(&last)?;
    check!(
        same.drift_ppm() == 0.0,
        "one moment tells a drift of {} ppm",
        same.drift_ppm()
    );
    Ok(())
}

fn a_correlation_waits_for_no_other_stream(c: &Context) -> Verdict {
    let (held, other) = (c.stream()?, c.stream()?);
    c.apart(&[&held, &other])?;
    let gate = c.gate(&held)?;
    let marker = held.record_timed()?;
    let correlation = c.device.correlate();
    let pending = !marker.query()?;
    gate.open();
    c.done(&marker)?;
    match correlation {
        // Without calibrated timestamps, a stamp may share the queue of the stream that is held.
        Err(Error::Timeout(_)) if c.device.backend() == Backend::Vulkan => {
            return Err(Stop::Skip("its stamp shares a hardware queue".into()));
        }
        correlation => drop(correlation?),
    }
    check!(pending, "it waited for a stream that is held");
    Ok(())
}
