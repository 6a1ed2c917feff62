//! The cases, by what they are about.

use super::Case;

mod asking;
mod correlating;
mod failing;
mod gates;
mod many;
mod measuring;
mod recording;
mod sharing;
mod telling;
mod timing;
#[cfg(all(feature = "trace", not(loom)))]
mod tracing;
mod waiting;

pub(super) const ALL: &[&[Case]] = &[
    recording::CASES,
    waiting::CASES,
    asking::CASES,
    timing::CASES,
    correlating::CASES,
    measuring::CASES,
    telling::CASES,
    failing::CASES,
    gates::CASES,
    many::CASES,
    sharing::CASES,
    #[cfg(all(feature = "trace", not(loom)))]
    tracing::CASES,
];

/// A case from the function of the same name.
macro_rules! case {
    ($about:literal, $name:ident, [$($mutant:ident),*]) => {
        $crate::testing::Case {
            name: stringify!($name),
            about: $about,
            #[cfg(feature = "mutants")]
            kills: &[$($crate::testing::Mutant::$mutant),*],
            run: $name,
        }
    };
}
use case;
