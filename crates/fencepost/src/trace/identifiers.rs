//! Identifiers that no other file has, so that files can be joined.

use super::{lanes::Lane, picture::Picture};

pub(super) fn process(picture: &Picture) -> u64 {
    unique(picture, 0, 0)
}

/// Of the sequence of packets that a file is.
pub(super) fn sequence(picture: &Picture) -> u32 {
    (unique(picture, 1, 0) as u32).max(1)
}

pub(super) fn track(picture: &Picture, lane: Lane) -> u64 {
    unique(
        picture,
        2,
        u64::from(lane.track) << 32 | u64::from(lane.number),
    )
}

pub(super) fn arrow(picture: &Picture, arrow: u32) -> u64 {
    unique(picture, 3, arrow.into())
}

/// The trace's own number, mixed with what the identifier is of.
fn unique(picture: &Picture, of: u64, number: u64) -> u64 {
    // The finalizer of SplitMix64, a bijection: within a trace and kind there are no equal ones.
    let mixed = |mut z: u64| {
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let kind = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(of + 1);
    let base = mixed(picture.process.unique.wrapping_add(kind));
    mixed(base ^ number).max(1)
}
