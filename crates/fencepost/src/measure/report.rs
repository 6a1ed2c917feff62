//! What was measured, and what there is to know of it.

use std::fmt;

use super::{
    picture,
    seconds::Seconds,
    statistics::{Sorted, median, spread},
};

/// What [`Measure::run`](super::Measure::run) found out: the times that one call takes on the
/// device, and notes on how far to trust them.
///
/// All times are seconds on the device's clock. They are as measured: one that is zero or negative
/// is kept. Its text, by [`Display`](fmt::Display), has at most five lines.
///
/// ```
/// let stream = fencepost::Device::open("host")?.new_stream()?;
/// let found = fencepost::measure(&stream, || stream.launch(|| { std::hint::black_box(7 * 6); }))?;
/// println!("{found}");
/// println!("{:.1} ns", found.median() * 1e9);
/// # Ok::<(), fencepost::Error>(())
/// ```
#[derive(Clone)]
pub struct Measurement {
    pub(super) samples: Vec<f64>,
    pub(super) sorted: Sorted,
    pub(super) alone: f64,
    pub(super) calls: (usize, usize),
    pub(super) cold: bool,
    pub(super) ungated: Option<String>,
    pub(super) notes: Vec<Note>,
    pub(super) stream: String,
    /// How long all of it took on the host, in seconds.
    pub(super) took: f64,
}

/// What a [`Measurement`] is made of: enough to make it again in another process.
#[derive(Clone, Debug)]
pub struct MeasurementParts {
    /// See [`Measurement::samples`].
    pub samples: Vec<f64>,
    /// See [`Measurement::alone`].
    pub alone: f64,
    /// See [`Measurement::calls`]. `(0, 1)` with a cold cache.
    pub calls: (usize, usize),
    /// Why the stream was not held.
    pub ungated: Option<String>,
    /// Whether the stream shows no work.
    pub is_idle: bool,
    /// The stream in words.
    pub stream: String,
    /// How long all of it took on the host, in seconds.
    pub took: f64,
}

impl From<&Measurement> for MeasurementParts {
    fn from(found: &Measurement) -> MeasurementParts {
        MeasurementParts {
            samples: found.samples.clone(),
            alone: found.alone,
            calls: found.calls,
            ungated: found.ungated.clone(),
            is_idle: found
                .notes
                .iter()
                .any(|note| matches!(note, Note::NoWork { .. })),
            stream: found.stream.clone(),
            took: found.took,
        }
    }
}

impl From<MeasurementParts> for Measurement {
    fn from(parts: MeasurementParts) -> Measurement {
        let sorted = Sorted::new(&parts.samples);
        let idle = parts.is_idle.then_some(&*parts.stream);
        let notes = notes(&parts.samples, &sorted, parts.ungated.as_deref(), idle);
        Measurement {
            cold: parts.calls == (0, 1),
            samples: parts.samples,
            sorted,
            alone: parts.alone,
            calls: parts.calls,
            ungated: parts.ungated,
            notes,
            stream: parts.stream,
            took: parts.took,
        }
    }
}

/// Something to know before a [`Measurement`] is quoted. Its [`Display`](fmt::Display) is a
/// sentence.
///
/// ```
/// # let stream = fencepost::Device::open("host")?.new_stream()?;
/// # let found = fencepost::measure(&stream, || stream.launch(|| ()))?;
/// for note in found.notes() {
///     println!("note: {note}");
/// }
/// # Ok::<(), fencepost::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Note {
    /// The stream was not held while the calls were queued. So the times of calls that are shorter
    /// on the device than on the host are those of the host.
    #[non_exhaustive]
    Ungated {
        /// Why it was not held.
        why: String,
    },
    /// The calls took no time that can be told from none: their work is not on this stream.
    #[non_exhaustive]
    NoWork {
        /// The stream in words.
        stream: String,
    },
    /// The second half of the samples differs from the first by more than chance.
    #[non_exhaustive]
    ClocksChanged {
        /// The median of the first half, in seconds.
        first: f64,
        /// The median of the second half, in seconds.
        second: f64,
    },
    /// The middle half of the samples spans more than a tenth of the median.
    #[non_exhaustive]
    WideSpread {
        /// The distance between the quartiles as a share of the median.
        share: f64,
    },
    /// The budget was spent before there were enough samples for an interval.
    #[non_exhaustive]
    FewSamples {
        /// How many there are.
        samples: usize,
    },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::Ungated { why } => write!(f, "the stream was not held: {why}"),
            Note::NoWork { stream } => write!(
                f,
                "no work was seen on {stream}: the function queues it on another one, or none"
            ),
            Note::ClocksChanged { first, second } => write!(
                f,
                "the first half of the samples says {}, the second {}: the device's clocks \
                 changed, or something else uses it",
                Seconds(*first),
                Seconds(*second)
            ),
            Note::WideSpread { share } => write!(
                f,
                "the spread is wide: the middle half of the samples spans {:.0} % of the median",
                share * 100.0
            ),
            Note::FewSamples { samples } => {
                let are = if *samples == 1 { "is" } else { "are" };
                write!(
                    f,
                    "{} {are} too few for an interval: give it a larger budget",
                    Samples(*samples)
                )
            }
        }
    }
}

/// A number of samples in words.
struct Samples(usize);

impl fmt::Display for Samples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            1 => f.write_str("1 sample"),
            count => write!(f, "{count} samples"),
        }
    }
}

impl Measurement {
    /// The median of the [`samples`](Measurement::samples): what one call takes among others in a
    /// row. It is the figure to quote for work that is called many times.
    ///
    /// ```
    /// # let stream = fencepost::Device::open("host")?.new_stream()?;
    /// # let found = fencepost::measure(&stream, || stream.launch(|| ()))?;
    /// println!("{:.3} µs a call", found.median() * 1e6);
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn median(&self) -> f64 {
        self.sorted.median()
    }

    /// The time that the share `q` of the samples lies below, interpolated; `None` for a `q` that
    /// is not from 0 to 1.
    ///
    /// ```
    /// # let stream = fencepost::Device::open("host")?.new_stream()?;
    /// # let found = fencepost::measure(&stream, || stream.launch(|| ()))?;
    /// assert_eq!(found.quantile(0.5), Some(found.median()));
    /// assert_eq!(found.quantile(95.0), None);
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn quantile(&self, q: f64) -> Option<f64> {
        self.sorted.quantile(q)
    }

    /// The times between which the median lies with a probability of at least 95 %, whatever the
    /// distribution of the samples; `None` with fewer than six of them.
    ///
    /// ```
    /// # let stream = fencepost::Device::open("host")?.new_stream()?;
    /// # let found = fencepost::measure(&stream, || stream.launch(|| ()))?;
    /// if let Some((low, high)) = found.interval() {
    ///     assert!(low <= found.median() && found.median() <= high);
    /// }
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn interval(&self) -> Option<(f64, f64)> {
        self.sorted.interval()
    }

    /// One number for each sample, in the order in which they were taken: the difference between
    /// two runs of a few and of more [`calls`](Measurement::calls), divided by the difference of
    /// their numbers. With a [cold](super::Measure::cold) cache, a single call less an empty pair.
    ///
    /// ```
    /// # let stream = fencepost::Device::open("host")?.new_stream()?;
    /// # let found = fencepost::measure(&stream, || stream.launch(|| ()))?;
    /// assert!(!found.samples().is_empty());
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn samples(&self) -> &[f64] {
        &self.samples
    }

    /// What a single call takes, less what an empty pair of events takes. On a GPU it is longer
    /// than the median: a call in a row starts while the one before it ends.
    ///
    /// ```
    /// # let stream = fencepost::Device::open("host")?.new_stream()?;
    /// # let found = fencepost::measure(&stream, || stream.launch(|| ()))?;
    /// println!("{:.3} µs alone", found.alone() * 1e6);
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn alone(&self) -> f64 {
        self.alone
    }

    /// How many calls lie in the shorter and in the longer run of a sample: 0 and 1 with a
    /// [cold](super::Measure::cold) cache. Those of the last sample, where they differ.
    ///
    /// ```
    /// # let stream = fencepost::Device::open("host")?.new_stream()?;
    /// # let found = fencepost::measure(&stream, || stream.launch(|| ()))?;
    /// let (few, more) = found.calls();
    /// assert!(few < more);
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn calls(&self) -> (usize, usize) {
        self.calls
    }

    /// Whether the stream was held while the calls were queued, so that the host's speed plays no
    /// part. If not, a [`Note::Ungated`] says why.
    ///
    /// ```
    /// # let stream = fencepost::Device::open("host")?.new_stream()?;
    /// # let found = fencepost::measure(&stream, || stream.launch(|| ()))?;
    /// println!("gated: {}", found.is_gated());
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn is_gated(&self) -> bool {
        self.ungated.is_none()
    }

    /// What there is to know before a figure is quoted; empty where all is well.
    ///
    /// ```
    /// # let stream = fencepost::Device::open("host")?.new_stream()?;
    /// # let found = fencepost::measure(&stream, || stream.launch(|| ()))?;
    /// for note in found.notes() {
    ///     eprintln!("note: {note}");
    /// }
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// A histogram of the samples as an SVG image, with the median and its interval.
    ///
    /// ```
    /// # let stream = fencepost::Device::open("host")?.new_stream()?;
    /// # let found = fencepost::measure(&stream, || stream.launch(|| ()))?;
    /// assert!(found.to_svg().starts_with("<svg "));
    /// # Ok::<(), fencepost::Error>(())
    /// ```
    pub fn to_svg(&self) -> String {
        let title = format!(
            "{} of {} on {}",
            Samples(self.samples.len()),
            match self.cold {
                true => "one call with a cold cache",
                false => "one call in a row",
            },
            self.stream
        );
        picture::histogram(&self.samples, &title)
    }
}

impl fmt::Display for Measurement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Seconds(self.median()))?;
        f.write_str(match self.cold {
            true => " a call with a cold cache",
            false => " a call in a row",
        })?;
        if let Some((low, high)) = self.interval() {
            write!(f, " (95 %: {} to {})", Seconds(low), Seconds(high))?;
        }
        if !self.cold {
            write!(f, ", {} alone", Seconds(self.alone))?;
        }
        write!(f, "\n{} of ", Samples(self.samples.len()))?;
        match self.calls {
            (0, 1) => write!(f, "1 call")?,
            (few, more) => write!(f, "{few} and {more} calls")?,
        }
        write!(f, " on {}, in {}", self.stream, Seconds(self.took))?;
        // Five lines at most.
        let (shown, rest) = self.notes.split_at(self.notes.len().min(2));
        for note in shown {
            write!(f, "\nnote: {note}")?;
        }
        match rest {
            [] => Ok(()),
            [note] => write!(f, "\nnote: {note}"),
            [note, rest @ ..] => write!(f, "\nnote: {note} (and {} more)", rest.len()),
        }
    }
}

impl fmt::Debug for Measurement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Measurement({self})")
    }
}

/// What the notes are taken from.
pub(super) struct Evidence<'a> {
    pub(super) samples: &'a [f64],
    pub(super) sorted: &'a Sorted,
    /// What a single call takes.
    pub(super) alone: f64,
    /// What an empty pair took, each time.
    pub(super) empty: &'a [f64],
    /// How many calls a sample divides by.
    pub(super) divisor: f64,
    /// The resolution of the clock in seconds.
    pub(super) resolution: f64,
    pub(super) ungated: Option<&'a str>,
    pub(super) stream: &'a str,
}

/// How many samples each half has at least, before the two are compared.
const HALF: usize = 12;

impl Evidence<'_> {
    pub(super) fn notes(&self) -> Vec<Note> {
        let idle = self.shows_no_work().then_some(self.stream);
        notes(self.samples, self.sorted, self.ungated, idle)
    }

    /// Ungated, the host's own time lies between the events, so nothing can be said.
    fn shows_no_work(&self) -> bool {
        let holds_zero = |(low, high): (f64, f64)| low <= 0.0 && 0.0 <= high;
        let added = self.sorted.median() * self.divisor;
        let noise = (median(self.empty).abs() / 4.0).max(self.resolution);
        // Work takes time: what is below zero is noise, however far.
        let is_small = added <= noise || self.sorted.interval().is_some_and(holds_zero);
        // Where a call takes long alone, a slope near zero is noise.
        self.ungated.is_none() && is_small && self.alone <= 2.0 * noise
    }
}

/// The notes on samples; `idle` is the stream, where it shows no work.
fn notes(samples: &[f64], sorted: &Sorted, ungated: Option<&str>, idle: Option<&str>) -> Vec<Note> {
    let mut notes = Vec::new();
    if let Some(why) = ungated {
        notes.push(Note::Ungated { why: why.into() });
    }
    if let Some(stream) = idle {
        let stream = stream.into();
        notes.push(Note::NoWork { stream });
        // The rest would speak of noise.
        return notes;
    }
    if sorted.interval().is_none() {
        let samples = samples.len();
        notes.push(Note::FewSamples { samples });
    }
    notes.extend(change(samples));
    let share = spread(sorted);
    // With a median of zero it is infinite, and says nothing.
    if share > 0.1 && share.is_finite() {
        notes.push(Note::WideSpread { share });
    }
    notes
}

fn change(samples: &[f64]) -> Option<Note> {
    let (first, second) = samples.split_at(samples.len() / 2);
    if first.len() < HALF {
        return None;
    }
    let (first, second) = (Sorted::new(first), Sorted::new(second));
    let ((low, high), (next_low, next_high)) = (first.interval()?, second.interval()?);
    let apart = high < next_low || next_high < low;
    let (first, second) = (first.median(), second.median());
    let far = (second - first).abs() > 0.03 * first.abs().min(second.abs());
    (apart && far).then_some(Note::ClocksChanged { first, second })
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn notes(samples: &[f64], empty: f64, ungated: Option<&str>) -> Vec<Note> {
        Evidence {
            samples,
            sorted: &Sorted::new(samples),
            alone: median(samples).abs(),
            empty: &[empty],
            divisor: 10.0,
            resolution: 1e-9,
            ungated,
            stream: "stream 7 of host",
        }
        .notes()
    }

    /// Samples around `middle` that no test here calls wide.
    fn around(middle: f64, n: usize) -> Vec<f64> {
        let part = |i: usize| 1.0 + (i * 7 % 5) as f64 / 1_000.0;
        (0..n).map(|i| middle * part(i)).collect()
    }

    #[test]
    fn good_samples_have_no_note() {
        assert_eq!(notes(&around(2e-6, 40), 1e-6, None), []);
    }

    #[test]
    fn a_time_that_cannot_be_told_from_zero_is_no_work() {
        let stream = "stream 7 of host".to_owned();
        let no_work = [Note::NoWork { stream }];
        assert_eq!(notes(&around(1e-9, 40), 1e-6, None), no_work);
        assert_eq!(notes(&[0.0; 20], 1e-6, None), no_work);
        // A function that sleeps, on a host: its empty pairs take what wakes the worker.
        let few = [-2.0e-7, -2.7e-7, -3.0e-7];
        let slept = Evidence {
            samples: &few,
            sorted: &Sorted::new(&few),
            alone: -2.4e-6,
            empty: &[2.5e-6],
            divisor: 1.0,
            resolution: 1e-9,
            ungated: None,
            stream: "stream 7 of host",
        };
        assert_eq!(slept.notes(), no_work);
        let noise: Vec<f64> = (0..21).map(|i| f64::from(i - 10) * 1e-6).collect();
        assert_eq!(notes(&noise, 1e-6, None), no_work);
        // A slope that cannot be told from zero, of calls that take long alone.
        let loud: Vec<f64> = (0..21).map(|i| f64::from(i - 9) * 1e-3).collect();
        let noted = notes(&loud, 1e-6, None);
        assert!(matches!(noted[..], [Note::WideSpread { .. }]), "{noted:?}");
        // What lies between two events on an ungated stream is the host's time.
        let ungated = notes(&around(1e-9, 40), 1e-6, Some("so"));
        assert!(matches!(ungated[..], [Note::Ungated { .. }]), "{ungated:?}");
    }

    #[test]
    fn a_second_half_that_is_slower_is_told() {
        let mut samples = around(2e-6, 20);
        assert_eq!(notes(&samples, 1e-6, None), []);
        samples.extend(around(2.2e-6, 20));
        let notes = notes(&samples, 1e-6, None);
        assert!(
            matches!(notes[..], [Note::ClocksChanged { first, second }] if first < second),
            "{notes:?}"
        );
    }

    #[test]
    fn a_wide_spread_and_few_samples_are_told() {
        let wide: Vec<f64> = (0..40).map(|i| 1e-6 * f64::from(10 + i * 7 % 11)).collect();
        let wide = notes(&wide, 1e-6, None);
        assert!(matches!(wide[..], [Note::WideSpread { share }] if share > 0.1));
        // A share of zero is no number that says something.
        let zero: Vec<f64> = (0..41).map(|i| 1e-3 * f64::from(i - 20)).collect();
        let zero = notes(&zero, 1e-6, Some("so"));
        assert!(
            matches!(zero[..], [Note::Ungated { .. }, ref rest @ ..]
            if !rest.iter().any(|note| note.to_string().contains("inf"))),
            "{zero:?}"
        );
        let few = notes(&around(2e-6, 5), 1e-6, None);
        assert_eq!(few, [Note::FewSamples { samples: 5 }]);
        let one = notes(&[2e-6], 1e-6, None)[0].to_string();
        assert!(
            one.starts_with("1 sample is too few for an interval"),
            "{one}"
        );
    }

    #[test]
    fn the_text_has_at_most_five_lines_and_no_more_than_is_known() {
        let note = || Note::WideSpread { share: 0.2 };
        for (samples, count) in [(vec![2e-6], 0), (around(2e-6, 9), 3), (around(-2e-6, 9), 7)] {
            let found = Measurement {
                sorted: Sorted::new(&samples),
                samples,
                alone: 3e-6,
                calls: (1, 11),
                cold: false,
                ungated: None,
                notes: (0..count).map(|_| note()).collect(),
                stream: "stream 7 of host".into(),
                took: 0.01,
            };
            let text = found.to_string();
            assert!(text.lines().count() <= 5, "{text}");
            assert_eq!(text.contains("95 %"), found.samples().len() > 5, "{text}");
            assert_eq!(text.contains("(and 4 more)"), count == 7, "{text}");
        }
    }
}
