//! The samples as a histogram, in SVG.

use std::fmt::Write as _;

use super::{seconds::Seconds, statistics::Sorted};

const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 220.0;
/// Room for the title above, and for the scale below.
const TOP: f64 = 34.0;
const BOTTOM: f64 = 36.0;
const SIDE: f64 = 16.0;

/// Where the bars stand, above the scale.
const FLOOR: f64 = HEIGHT - BOTTOM;

/// A histogram of `samples`, with their median and its interval. `title` is plain text.
pub(super) fn histogram(samples: &[f64], title: &str) -> String {
    let sorted = Sorted::new(samples);
    let (Some(least), Some(most)) = (sorted.first(), sorted.last()) else {
        return String::new();
    };
    // Equal samples have a bar of some width too.
    let room = match most > least {
        true => (most - least) * 0.02,
        false => least.abs().max(1e-9) * 0.01,
    };
    let (from, to) = (least - room, most + room);
    let x = |value: f64| SIDE + (value - from) / (to - from) * (WIDTH - 2.0 * SIDE);

    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         width=\"{WIDTH}\" height=\"{HEIGHT}\" role=\"img\" font-family=\"sans-serif\" \
         font-size=\"11\"><rect width=\"100%\" height=\"100%\" fill=\"white\"/>\
         <text x=\"{SIDE}\" y=\"20\" font-size=\"13\">{}</text>",
        escaped(title)
    );
    if let Some((low, high)) = sorted.interval() {
        let (low, high) = (x(low), x(high));
        let _ = write!(
            svg,
            "<rect x=\"{low:.1}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{:.1}\" \
             fill=\"#f3d9a4\"><title>95 % interval of the median</title></rect>",
            (high - low).max(1.0),
            FLOOR - TOP
        );
    }
    bars(&mut svg, &counted(samples, from, to));
    let median = x(sorted.median());
    let _ = write!(
        svg,
        "<path d=\"M{median:.1} {TOP}V{FLOOR}\" stroke=\"#b03a2e\" stroke-width=\"1.5\"/>\
         <path d=\"M{SIDE} {FLOOR}H{}\" stroke=\"black\"/>",
        WIDTH - SIDE
    );
    labels(&mut svg, [least, sorted.median(), most], median);
    svg + "</svg>"
}

/// One bar for each bin that is not empty, the highest up to the title.
fn bars(svg: &mut String, counts: &[usize]) {
    let highest = counts.iter().copied().max().unwrap_or(1).max(1) as f64;
    let step = (WIDTH - 2.0 * SIDE) / counts.len() as f64;
    for (i, &count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        let height = count as f64 / highest * (FLOOR - TOP);
        let _ = write!(
            svg,
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{height:.1}\" \
             fill=\"#3b6ea5\" fill-opacity=\"0.8\"><title>{count}</title></rect>",
            SIDE + i as f64 * step,
            FLOOR - height,
            step - 1.0
        );
    }
}

/// The scale: the least time, the median, which is at `middle`, and the longest.
fn labels(svg: &mut String, [least, median, most]: [f64; 3], middle: f64) {
    // The median has a line of its own, since it may be near one of the others.
    let labels = [
        (SIDE, FLOOR + 14.0, "start", "", least),
        (
            middle.max(SIDE + 60.0),
            FLOOR + 28.0,
            "middle",
            "median ",
            median,
        ),
        (WIDTH - SIDE, FLOOR + 14.0, "end", "", most),
    ];
    for (x, y, anchor, what, value) in labels {
        let _ = write!(
            svg,
            "<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"{anchor}\">{what}{}</text>",
            Seconds(value)
        );
    }
}

/// How many samples lie in each of some bins of equal width.
fn counted(samples: &[f64], from: f64, to: f64) -> Vec<usize> {
    let bins = ((samples.len() as f64).sqrt().ceil() as usize).clamp(5, 40);
    let mut counts = vec![0; bins];
    for sample in samples {
        let bin = ((sample - from) / (to - from) * bins as f64) as usize;
        counts[bin.min(bins - 1)] += 1;
    }
    counts
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn every_sample_is_in_a_bar() {
        let samples: Vec<f64> = (0..100).map(|i| f64::from(i) * 1e-6).collect();
        assert_eq!(counted(&samples, -1e-6, 1e-4).iter().sum::<usize>(), 100);
        let svg = histogram(&samples, "a < b & c");
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>"));
        assert!(svg.contains("a &lt; b &amp; c"), "{svg}");
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

    #[test]
    fn equal_zero_negative_and_single_samples_have_a_picture() {
        for samples in [&[0.0; 7][..], &[-1e-6, -2e-6, 3e-6], &[5e-3]] {
            let svg = histogram(samples, "some");
            assert!(svg.ends_with("</svg>"));
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
        assert_eq!(histogram(&[], "none"), "");
    }
}
