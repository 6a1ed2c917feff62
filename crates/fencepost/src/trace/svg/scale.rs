//! The axis of time: places of moments, and its labels.

/// From nanoseconds to places in the picture.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    pub(super) from: i64,
    pub(super) to: i64,
    pub(super) left: f64,
    pub(super) right: f64,
}

impl Scale {
    pub(super) fn x(&self, time: i64) -> f64 {
        let share = (time.saturating_sub(self.from)) as f64 / self.length() as f64;
        self.left + share.clamp(0.0, 1.0) * (self.right - self.left)
    }

    /// At least one nanosecond.
    pub(super) fn length(&self) -> i64 {
        self.to.saturating_sub(self.from).max(1)
    }

    /// Times with a line and a label each, from 0 on, and their unit.
    pub(super) fn ticks(&self) -> (Vec<(i64, String)>, &'static str) {
        let least = self.length() as f64 / 8.0;
        let power = 10f64.powf(least.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
        let step = step
            .into_iter()
            .find(|step| *step >= least)
            .unwrap_or(least);
        let step = (step.round() as i64).max(1);
        let (unit, name) = unit(self.length());
        // As many digits behind the point as the step has.
        let digits = (0..9).find(|digits| step * 10i64.pow(*digits) % unit == 0);
        let digits = digits.unwrap_or(9) as usize;
        let count = self.length() / step;
        let label = |number: i64| {
            let time = number * step;
            (
                self.from + time,
                format!("{:.digits$}", time as f64 / unit as f64),
            )
        };
        ((0..=count).map(label).collect(), name)
    }
}

/// The largest unit that a time has at least two of.
fn unit(nanoseconds: i64) -> (i64, &'static str) {
    match nanoseconds {
        ..2_000 => (1, "ns"),
        2_000..2_000_000 => (1_000, "µs"),
        2_000_000..2_000_000_000 => (1_000_000, "ms"),
        _ => (1_000_000_000, "s"),
    }
}

/// A time in words.
pub(super) fn in_words(nanoseconds: i64) -> String {
    let (unit, name) = unit(nanoseconds);
    match unit {
        1 => format!("{nanoseconds} ns"),
        _ => {
            let value = nanoseconds as f64 / unit as f64;
            let digits = match value {
                ..10.0 => 2,
                10.0..100.0 => 1,
                _ => 0,
            };
            format!("{value:.digits$} {name}")
        }
    }
}
