//! Wrong handles and calls give errors and violations, and never crash.

mod support;

use fencepost_sim_cuda::codes::*;
use fencepost_sim_cuda::*;
use std::ffi::CStr;
use support::*;

#[test]
fn stale_foreign_and_made_up_handles_are_violations() {
    with_seeds(1, |session| {
        let (event, stream) = (event(0), stream());
        destroy_events(&[event]);
        destroy_streams(&[stream]);
        let wrong = [
            (cuEventQuery(event), "was destroyed"),
            (cuEventDestroy_v2(event), "was destroyed"),
            (cuStreamQuery(stream), "was destroyed"),
            (cuStreamDestroy_v2(stream), "was destroyed"),
            (cuEventQuery(stream), "was never created"),
            (cuEventQuery(0), "was never created"),
            (cuEventSynchronize(0xdead_beef), "was never created"),
            (cuStreamSynchronize(usize::MAX), "was never created"),
            (cuGraphLaunch(16, 0), "was never created"),
            (cuModuleUnload(16), "was never created"),
            (cuStreamDestroy_v2(CU_STREAM_PER_THREAD), "cannot be"),
        ];
        let violations = session.violations();
        assert_eq!(violations.len(), wrong.len());
        for ((code, text), violation) in wrong.into_iter().zip(violations) {
            assert_eq!(code, CUDA_ERROR_INVALID_HANDLE);
            assert!(violation.contains(text), "{violation}");
        }
        session.clear_violations();
        assert_eq!(cuCtxSetCurrent(event), CUDA_ERROR_INVALID_CONTEXT);
        session.clear_violations_of("context");
    });
}

#[test]
fn memory_that_is_not_allocated_cannot_be_freed() {
    with_seeds(1, |session| {
        let mut memory = 0;
        ok(cuMemAlloc_v2(Out::to(&mut memory), 8));
        assert_eq!(cuMemFree_v2(memory + 4), CUDA_ERROR_INVALID_VALUE);
        let host = std::ptr::without_provenance_mut(memory as usize);
        assert_eq!(cuMemFreeHost(host), CUDA_ERROR_INVALID_VALUE);
        ok(cuMemFree_v2(memory));
        assert_eq!(cuMemFree_v2(memory), CUDA_ERROR_INVALID_VALUE);
        assert_eq!(session.violations().len(), 3);
        session.clear_violations_of("is not allocated");
        assert_eq!(
            cuMemAlloc_v2(Out::to(&mut memory), 0),
            CUDA_ERROR_INVALID_VALUE
        );
        assert_eq!(
            cuMemAlloc_v2(Out::to(&mut memory), 1 << 50),
            CUDA_ERROR_OUT_OF_MEMORY
        );
    });
}

#[test]
fn releasing_a_context_that_is_not_retained_is_a_violation() {
    with_seeds(1, |session| {
        assert_eq!(cuDevicePrimaryCtxRelease_v2(1), CUDA_ERROR_INVALID_CONTEXT);
        session.clear_violations_of("is not retained");
    });
}

#[test]
fn a_device_out_of_range_is_an_error() {
    with_seeds(1, |_| {
        let mut got = 0;
        for bad in [-1, 2, i32::MAX] {
            let mut context = 0;
            for code in [
                cuDeviceGet(Out::to(&mut got), bad),
                cuDeviceGetAttribute(Out::to(&mut got), 75, bad),
                cuDevicePrimaryCtxRetain(Out::to(&mut context), bad),
                cuDevicePrimaryCtxReset_v2(bad),
            ] {
                assert_eq!(code, CUDA_ERROR_INVALID_DEVICE);
            }
        }
    });
}

#[test]
fn the_devices_are_named_as_stand_ins() {
    with_seeds(1, |_| {
        let (mut version, mut count) = (0, 0);
        ok(cuDriverGetVersion(Out::to(&mut version)));
        ok(cuDeviceGetCount(Out::to(&mut count)));
        assert_eq!((version, count), (13000, 2));
        let mut name = [1; 128];
        // SAFETY: there is space for 128 bytes
        ok(unsafe { cuDeviceGetName(name.as_mut_ptr(), 128, 0) });
        // SAFETY: it ends with a zero
        let long = unsafe { CStr::from_ptr(name.as_ptr()) };
        assert_eq!(long.to_str(), Ok("fencepost stand-in (no NVIDIA hardware)"));
        // SAFETY: there is space for 10 bytes
        ok(unsafe { cuDeviceGetName(name.as_mut_ptr(), 10, 0) });
        // SAFETY: it ends with a zero
        let short = unsafe { CStr::from_ptr(name.as_ptr()) };
        assert_eq!(short.to_str(), Ok("fencepost"));
        let mut uuids = [CUuuid::default(); 2];
        ok(cuDeviceGetUuid_v2(Out::to(&mut uuids[0]), 0));
        ok(cuDeviceGetUuid_v2(Out::to(&mut uuids[1]), 1));
        assert_ne!(uuids[0], uuids[1]);
    });
}

#[test]
fn errors_have_names() {
    let (mut name, mut meaning) = (std::ptr::null(), std::ptr::null());
    ok(cuGetErrorName(719, Out::to(&mut name)));
    ok(cuGetErrorString(719, Out::to(&mut meaning)));
    // SAFETY: both are C strings that live for ever
    let (name, meaning) = unsafe { (CStr::from_ptr(name), CStr::from_ptr(meaning)) };
    assert_eq!(name, c"CUDA_ERROR_LAUNCH_FAILED");
    assert_eq!(meaning, c"unspecified launch failure");
    let mut none = c"".as_ptr();
    assert_eq!(
        cuGetErrorName(12345, Out::to(&mut none)),
        CUDA_ERROR_INVALID_VALUE
    );
    assert!(none.is_null());
}

#[test]
fn a_context_that_is_not_the_primary_one_has_objects_of_its_own() {
    with_seeds(1, |session| {
        let (mut context, mut current) = (0, 0);
        ok(cuCtxCreate_v2(Out::to(&mut context), 0, 0));
        ok(cuCtxGetCurrent(Out::to(&mut current)));
        assert_eq!(context, current);
        let (theirs, stream) = (event(0), stream());
        ok(cuEventRecord(theirs, stream));
        ok(cuEventSynchronize(theirs));
        ok(cuCtxDestroy_v2(context));
        ok(cuCtxGetCurrent(Out::to(&mut current)));
        assert_ne!(context, current);
        assert_eq!(cuEventQuery(theirs), CUDA_ERROR_CONTEXT_IS_DESTROYED);
        assert_eq!(cuEventDestroy_v2(theirs), CUDA_ERROR_CONTEXT_IS_DESTROYED);
        assert_eq!(cuStreamDestroy_v2(stream), CUDA_ERROR_CONTEXT_IS_DESTROYED);
        assert_eq!(cuCtxSetCurrent(context), CUDA_ERROR_INVALID_CONTEXT);
        session.clear_violations_of("was destroyed");
    });
}

#[test]
fn a_restart_invalidates_old_handles() {
    with_seeds(1, |session| {
        let old = event(0);
        session.restart(session.seed(), 2);
        assert_eq!(cuEventQuery(old), CUDA_ERROR_INVALID_HANDLE);
        session.clear_violations_of("was never created");
        let mut made = 0;
        assert_eq!(
            cuEventCreate(Out::to(&mut made), 0),
            CUDA_ERROR_INVALID_CONTEXT
        );
    });
}
