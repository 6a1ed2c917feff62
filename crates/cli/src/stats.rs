//! Summary statistics of measured values.

/// The figures that tables and JSON show.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Stats {
    pub(crate) n: usize,
    pub(crate) min: f64,
    pub(crate) p5: f64,
    pub(crate) median: f64,
    pub(crate) p95: f64,
    pub(crate) max: f64,
    pub(crate) total: f64,
}

impl Stats {
    /// `None` if there are no values.
    pub(crate) fn of(mut values: Vec<f64>) -> Option<Stats> {
        values.sort_by(f64::total_cmp);
        Some(Stats {
            n: values.len(),
            min: *values.first()?,
            p5: quantile(&values, 0.05),
            median: quantile(&values, 0.5),
            p95: quantile(&values, 0.95),
            max: *values.last()?,
            total: values.iter().sum(),
        })
    }
}

/// Interpolates between the two nearest ranks. `sorted` is not empty.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let rank = q * (sorted.len() - 1) as f64;
    let (low, high) = (sorted[rank.floor() as usize], sorted[rank.ceil() as usize]);
    low + (high - low) * rank.fract()
}

/// The entropy of bytes that occur this often, in bits per byte; 0 if there are none.
pub(crate) fn entropy(counts: &[u64; 256]) -> f64 {
    let total: u64 = counts.iter().sum();
    let bits = |&count: &u64| match count {
        0 => 0.0,
        _ => {
            let share = count as f64 / total as f64;
            -share * share.log2()
        }
    };
    // From +0.0 on, a sum of -0.0s prints no sign.
    counts.iter().map(bits).fold(0.0, |sum, bits| sum + bits)
}

/// From one time to a later one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Interval {
    pub(crate) start: f64,
    pub(crate) end: f64,
}

impl Interval {
    pub(crate) fn length(self) -> f64 {
        self.end - self.start
    }
}

/// The same times as intervals that are apart, in order.
pub(crate) fn union(mut intervals: Vec<Interval>) -> Vec<Interval> {
    intervals.sort_by(|a, b| a.start.total_cmp(&b.start));
    let mut apart: Vec<Interval> = Vec::new();
    for interval in intervals {
        match apart.last_mut() {
            Some(last) if interval.start <= last.end => last.end = last.end.max(interval.end),
            _ => apart.push(interval),
        }
    }
    apart
}

/// How long both last at once. Each is a [`union`].
pub(crate) fn common(left: &[Interval], right: &[Interval]) -> f64 {
    let (mut left, mut right) = (left.iter().peekable(), right.iter().peekable());
    let mut both = 0.0;
    while let (Some(one), Some(other)) = (left.peek(), right.peek()) {
        let shared = one.end.min(other.end) - one.start.max(other.start);
        both += shared.max(0.0);
        match one.end <= other.end {
            true => left.next(),
            false => right.next(),
        };
    }
    both
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_has_no_figures() {
        assert_eq!(Stats::of(Vec::new()), None);
    }

    #[test]
    fn one_value_is_all_its_figures() {
        let stats = Stats::of(vec![7.0]).unwrap();
        let Stats {
            min,
            p5,
            median,
            p95,
            max,
            total,
            n,
        } = stats;
        assert_eq!([min, p5, median, p95, max, total], [7.0; 6]);
        assert_eq!(n, 1);
    }

    #[test]
    fn quantiles_lie_between_their_neighbours() {
        let stats = Stats::of((0..=100).rev().map(f64::from).collect()).unwrap();
        assert_eq!((stats.p5, stats.median, stats.p95), (5.0, 50.0, 95.0));
        assert_eq!((stats.min, stats.max, stats.total), (0.0, 100.0, 5050.0));
        assert_eq!(Stats::of(vec![4.0, 1.0, 3.0, 2.0]).unwrap().median, 2.5);
    }

    #[test]
    fn entropy_of_known_distributions() {
        assert_eq!(entropy(&[0; 256]), 0.0);
        assert_eq!(entropy(&[3; 256]), 8.0);
        let mut counts = [0; 256];
        counts[65] = 1000;
        assert_eq!(entropy(&counts), 0.0);
        assert!(entropy(&counts).is_sign_positive());
        counts[66] = 1000;
        assert_eq!(entropy(&counts), 1.0);
    }

    fn intervals(times: &[(f64, f64)]) -> Vec<Interval> {
        let interval = |&(start, end)| Interval { start, end };
        times.iter().map(interval).collect()
    }

    #[test]
    fn a_union_is_apart_and_in_order() {
        assert_eq!(union(Vec::new()), []);
        let mixed = intervals(&[(8.0, 9.0), (0.0, 2.0), (1.0, 3.0), (3.0, 4.0), (1.0, 1.5)]);
        assert_eq!(union(mixed), intervals(&[(0.0, 4.0), (8.0, 9.0)]));
    }

    #[test]
    fn what_two_have_in_common_is_what_a_count_of_steps_finds() {
        let left = intervals(&[(0.0, 4.0), (8.0, 9.0), (12.0, 20.0)]);
        let right = intervals(&[(3.0, 8.5), (10.0, 12.0), (13.0, 14.0), (15.0, 30.0)]);
        let at_work = |of: &[Interval], at: f64| of.iter().any(|i| i.start <= at && at < i.end);
        let steps = (0..300).map(|step| f64::from(step) / 10.0 + 0.05);
        let both = steps.filter(|&at| at_work(&left, at) && at_work(&right, at));
        let both = both.count() as f64 / 10.0;
        assert!((common(&left, &right) - both).abs() < 1e-9);
        assert_eq!(common(&left, &right), common(&right, &left));
        assert_eq!(common(&left, &[]), 0.0);
    }
}
