//! The library, loaded in place of the driver.

use fencepost_sim_cuda::{Control, FUNCTIONS, Live, library_path};
use libloading::Library;
use std::path::PathBuf;

/// A seed that no other test uses.
const SEED: u64 = 0x5eed_5eed;

fn path() -> PathBuf {
    library_path().expect("cargo builds the library beside its tests")
}

#[test]
fn every_function_is_found_by_its_name() {
    // SAFETY: the library does nothing when it is loaded
    let library = unsafe { Library::new(path()) }.unwrap();
    let nvml = [
        "nvmlInit_v2",
        "nvmlShutdown",
        "nvmlDeviceGetCount_v2",
        "nvmlDeviceGetHandleByIndex_v2",
        "nvmlDeviceGetUUID",
        "nvmlDeviceGetMigMode",
    ];
    for name in FUNCTIONS.iter().chain(&nvml) {
        // SAFETY: only its address is used
        let found = unsafe { library.get::<*const ()>(*name) };
        assert!(found.is_ok(), "{name}");
    }
}

#[test]
fn all_code_that_loads_the_same_path_shares_one_machine() {
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
    // the copy that is linked into this test has its own machine
    assert_ne!(Control::linked().seed(), SEED);
}

#[cfg(unix)]
#[test]
fn in_a_forked_child_nothing_is_initialized() {
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

/// Runs one test of this program in a child process, with `message` in `FENCEPOST_TEST_CHILD`.
fn child(test: &str, message: &str) -> std::process::Child {
    std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env("FENCEPOST_TEST_CHILD", message)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn an_event_is_shared_with_another_process() {
    use fencepost_sim_cuda::*;
    let control = Control::linked();
    let _session = control.session(1, 1);
    let (mut context, mut event, mut stream) = (0, 0, 0);
    let mut handle = CUipcEventHandle { reserved: [0; 64] };
    assert_eq!(cuInit(0), 0);
    assert_eq!(cuDevicePrimaryCtxRetain(Out::to(&mut context), 0), 0);
    assert_eq!(cuCtxSetCurrent(context), 0);
    assert_eq!(cuStreamCreate(Out::to(&mut stream), 0), 0);
    if let Ok(message) = std::env::var("FENCEPOST_TEST_CHILD") {
        for (byte, text) in handle.reserved.iter_mut().zip(message.split(' ')) {
            *byte = text.parse().unwrap();
        }
        assert_eq!(cuIpcOpenEventHandle(Out::to(&mut event), handle), 0);
        assert_eq!(cuEventQuery(event), codes::CUDA_ERROR_NOT_READY);
        println!("queried");
        assert_eq!(cuStreamWaitEvent(stream, event, 0), 0);
        assert_eq!(cuStreamSynchronize(stream), 0);
        assert_eq!(cuEventSynchronize(event), 0);
        return;
    }
    let flags = CU_EVENT_INTERPROCESS | CU_EVENT_DISABLE_TIMING;
    assert_eq!(cuEventCreate(Out::to(&mut event), flags), 0);
    assert_eq!(cuEventQuery(event), 0);
    assert_eq!(cuIpcGetEventHandle(Out::to(&mut handle), event), 0);
    control.pause(stream);
    assert_eq!(cuEventRecord(event, stream), 0);
    assert_eq!(cuEventQuery(event), codes::CUDA_ERROR_NOT_READY);
    let message: Vec<String> = handle.reserved.iter().map(u8::to_string).collect();
    let mut other = child(
        "an_event_is_shared_with_another_process",
        &message.join(" "),
    );
    let output = std::io::BufReader::new(other.stdout.take().unwrap());
    let mut lines = std::io::BufRead::lines(output);
    assert!(lines.any(|line| line.unwrap().contains("queried")));
    assert!(other.try_wait().unwrap().is_none());
    control.resume(stream);
    assert!(other.wait().unwrap().success());
    assert_eq!(cuEventSynchronize(event), 0);
    assert_eq!(cuEventDestroy_v2(event), 0);
}
