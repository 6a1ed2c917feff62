//! The library as it is loaded in place of the driver's.

use fencepost_sim_cuda::{Control, FUNCTIONS, Live, library_path};
use libloading::Library;
use std::path::PathBuf;

/// Nobody else's.
const SEED: u64 = 0x5eed_5eed;

fn path() -> PathBuf {
    library_path().expect("cargo builds the library beside its tests")
}

#[test]
fn every_function_is_found_by_its_name() {
    // SAFETY: the library does nothing when it is loaded
    let library = unsafe { Library::new(path()) }.unwrap();
    for name in FUNCTIONS {
        // SAFETY: only its address is looked at
        let found = unsafe { library.get::<*const ()>(*name) };
        assert!(found.is_ok(), "{name}");
    }
}

#[test]
fn whoever_loads_the_same_path_shares_one_machine() {
    let control = Control::load(&path()).unwrap();
    // SAFETY: the library does nothing when it is loaded
    let library = unsafe { Library::new(path()) }.unwrap();
    // SAFETY: the type of the function of this name
    let init = unsafe { library.get::<extern "C" fn(u32) -> u32>("cuInit") }.unwrap();
    let session = control.session(SEED, 3);
    assert_eq!(session.seed(), SEED);
    session.fail_call("cuInit", 1, 46);
    assert_eq!(init(0), 46);
    assert_eq!(init(0), 0);
    assert_eq!(session.calls("cuInit"), 2);
    assert_eq!(session.live(), Live::default());
    assert!(session.violations().is_empty());
    // the copy linked into this test is another
    assert_ne!(Control::linked().seed(), SEED);
}

#[cfg(unix)]
#[test]
fn a_forked_child_is_told_that_nothing_is_initialised() {
    use fencepost_sim_cuda::*;
    let control = Control::linked();
    let _session = control.session(1, 1);
    assert_eq!(cuInit(0), 0);
    // SAFETY: the child calls nothing but the stand-in, which takes no lock there, and `_exit`
    let child = unsafe { libc::fork() };
    if child == 0 {
        let mut event = 0;
        let codes = [cuInit(0), cuEventCreate(Out::to(&mut event), 0)];
        let good = codes == [codes::CUDA_ERROR_NOT_INITIALIZED; 2];
        // SAFETY: ends the child without running anything of the parent's
        unsafe { libc::_exit(i32::from(!good)) };
    }
    let mut status = -1;
    // SAFETY: a child of ours, and a place for its status
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    assert_eq!(status, 0);
}
