//! Order statistics: they assume nothing of how the samples are distributed.

/// Samples in rising order.
#[derive(Clone)]
pub(super) struct Sorted(Vec<f64>);

impl Sorted {
    pub(super) fn new(samples: &[f64]) -> Sorted {
        let mut sorted = samples.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        Sorted(sorted)
    }

    /// NaN without samples.
    pub(super) fn median(&self) -> f64 {
        self.quantile(0.5).unwrap_or(f64::NAN)
    }

    /// The value that the share `q` of the samples lies below, interpolated between two samples
    /// (type 7 of Hyndman and Fan, which is NumPy's default). `None` without samples, and for a `q`
    /// that is not from 0 to 1.
    pub(super) fn quantile(&self, q: f64) -> Option<f64> {
        if !(0.0..=1.0).contains(&q) {
            return None;
        }
        let place = q * self.0.len().checked_sub(1)? as f64;
        let (low, part) = (place.floor() as usize, place.fract());
        let (low, high) = (self.0[low], self.0[place.ceil() as usize]);
        Some(low + (high - low) * part)
    }

    /// The two samples between which the true median lies with a probability of at least 95 %,
    /// whatever the distribution. `None` with fewer than six samples, of which no two are that far
    /// apart.
    pub(super) fn interval(&self) -> Option<(f64, f64)> {
        let below = rank(self.0.len());
        let low = below.checked_sub(1)?;
        Some((self.0[low], self.0[self.0.len() - below]))
    }

    pub(super) fn first(&self) -> Option<f64> {
        self.0.first().copied()
    }

    pub(super) fn last(&self) -> Option<f64> {
        self.0.last().copied()
    }
}

/// The median of `samples`; NaN without any.
pub(super) fn median(samples: &[f64]) -> f64 {
    Sorted::new(samples).median()
}

/// How far apart the quartiles are, as a share of the median.
pub(super) fn spread(samples: &Sorted) -> f64 {
    let quartile = |q| samples.quantile(q).unwrap_or(f64::NAN);
    (quartile(0.75) - quartile(0.25)) / samples.median().abs()
}

/// Whether both ends of the interval lie within `share` of the median.
pub(super) fn is_within(samples: &Sorted, share: f64) -> bool {
    let (median, interval) = (samples.median(), samples.interval());
    interval.is_some_and(|(low, high)| (high - median).max(median - low) <= share * median.abs())
}

/// The largest `r` for which the `r`th sample from below and the `r`th from above enclose the
/// median with a probability of 95 %; 0 if there is none.
///
/// How many of `n` samples lie below the median is binomial with one half. So the median lies below
/// the `r`th sample with the probability that fewer than `r` of them do, and each side may have
/// 2.5 %.
fn rank(n: usize) -> usize {
    // In logarithms: 2^-n is no f64 beyond some thousand samples.
    let mut ln_term = -(n as f64) * std::f64::consts::LN_2;
    let mut below = ln_term.exp();
    let mut r = 0;
    while below <= 0.025 && r < n {
        r += 1;
        ln_term += ((n - r + 1) as f64 / r as f64).ln();
        below += ln_term.exp();
    }
    r
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The ranks of the published tables for a confidence of at least 95 %, such as that of
    /// Conover, Practical Nonparametric Statistics.
    #[test]
    fn ranks_are_those_of_the_tables() {
        for (n, r) in [
            (0, 0),
            (1, 0),
            (5, 0),
            (6, 1),
            (8, 1),
            (9, 2),
            (10, 2),
            (20, 6),
            (25, 8),
            (50, 18),
            (100, 40),
        ] {
            assert_eq!(rank(n), r, "of {n} samples");
        }
        // Near the normal approximation where 2^-n is no f64 any more.
        assert!((4_900..=4_903).contains(&rank(10_000)), "{}", rank(10_000));
    }

    #[test]
    fn quantiles_are_interpolated_as_numpy_does() {
        let sorted = Sorted::new(&[4.0, 1.0, 3.0, 2.0]);
        assert_eq!(sorted.median(), 2.5);
        assert_eq!(sorted.quantile(0.0), Some(1.0));
        assert_eq!(sorted.quantile(1.0), Some(4.0));
        assert_eq!(sorted.quantile(0.25), Some(1.75));
        for wrong in [-0.1, 1.1, f64::NAN] {
            assert_eq!(sorted.quantile(wrong), None);
        }
        assert!(median(&[]).is_nan());
        assert_eq!(Sorted::new(&[]).quantile(0.5), None);
    }

    #[test]
    fn six_samples_are_the_fewest_with_an_interval() {
        let samples = [6.0, 5.0, 4.0, 3.0, 2.0, 1.0];
        assert_eq!(Sorted::new(&samples).interval(), Some((1.0, 6.0)));
        assert_eq!(Sorted::new(&samples[1..]).interval(), None);
    }

    #[test]
    fn negative_and_zero_samples_count_as_they_are() {
        let sorted = Sorted::new(&[-2.0, -1.0, 0.0, -3.0, -4.0, 0.0, 0.0]);
        assert_eq!(sorted.median(), -1.0);
        assert_eq!(sorted.interval(), Some((-4.0, 0.0)));
        assert!(!is_within(&sorted, 0.01));
    }

    proptest! {
        #[test]
        fn the_interval_encloses_the_median(samples in prop::collection::vec(-1e3..1e3, 6..200)) {
            let sorted = Sorted::new(&samples);
            let (low, high) = sorted.interval().unwrap();
            prop_assert!(low <= sorted.median() && sorted.median() <= high);
            prop_assert!(sorted.first() <= Some(low) && Some(high) <= sorted.last());
        }

        #[test]
        fn scaling_the_samples_scales_everything(
            samples in prop::collection::vec(1.0..1e3, 6..60),
            q in 0.0..=1.0,
        ) {
            // A power of two, so that the products are exact.
            let scaled: Vec<f64> = samples.iter().map(|x| x * 8.0).collect();
            let (one, two) = (Sorted::new(&samples), Sorted::new(&scaled));
            prop_assert_eq!(one.quantile(q).map(|x| x * 8.0), two.quantile(q));
            prop_assert_eq!(one.interval().map(|(a, b)| (a * 8.0, b * 8.0)), two.interval());
            prop_assert_eq!(is_within(&one, 0.1), is_within(&two, 0.1));
            prop_assert_eq!(spread(&one), spread(&two));
        }

        #[test]
        fn the_interval_is_as_sure_as_it_says(n in 6_usize..400) {
            // The probability that the median lies outside, by a sum that uses no logarithm.
            let r = rank(n);
            let mut term = 0.5_f64.powi(n as i32);
            let (mut below, mut next) = (0.0, 0.0);
            for i in 0..=r {
                if i < r {
                    below += term;
                }
                next += term;
                term *= (n - i) as f64 / (i + 1) as f64;
            }
            prop_assert!(below <= 0.025 && next > 0.025, "{} {}", below, next);
        }
    }
}
