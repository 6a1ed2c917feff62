//! CUPTI: found at run time, subscribed to, and handed over to the program's own profiler.
//!
//! CUPTI takes one subscriber. `fencepost watch` preloads this library, so that the program's own
//! calls of `cuptiSubscribe`, `cuptiUnsubscribe` and `cuptiFinalize` come here first, unless it
//! looks the functions up in CUPTI's library itself. A program that subscribes gets CUPTI; when it
//! unsubscribes, the watching goes on, and what was seen before is not relied on.
//!
//! <https://docs.nvidia.com/cupti/main/main.html#callback-api>

use std::{
    ffi::{CStr, CString, OsStr, c_char, c_int, c_uint, c_void},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError, atomic::Ordering},
};

use crate::{
    callback::{self, CallbackData, DRIVER_CALLS, FOLLOWS},
    calls, driver, seen,
};

type Code = c_int;
type Callback = unsafe extern "C" fn(*mut c_void, c_int, c_uint, *const CallbackData);
type Subscribe = unsafe extern "C" fn(*mut *mut c_void, *const c_void, *mut c_void) -> Code;
type Unsubscribe = unsafe extern "C" fn(*mut c_void) -> Code;
type Enable = unsafe extern "C" fn(c_uint, *mut c_void, c_int, c_uint) -> Code;
type Finalize = unsafe extern "C" fn() -> Code;
type ResultString = unsafe extern "C" fn(Code, *mut *const c_char) -> Code;

const SUCCESS: Code = 0;
const MULTIPLE_SUBSCRIBERS: Code = 39;
const UNKNOWN: Code = 999;

/// The variable that names CUPTI's library, if it is not to be searched.
const LIBRARY: &str = "FENCEPOST_CUPTI_LIBRARY";

#[derive(Clone, Copy, Debug)]
struct Functions {
    subscribe: Subscribe,
    unsubscribe: Unsubscribe,
    enable: Enable,
    finalize: Option<Finalize>,
    result_string: Option<ResultString>,
}

/// Who has CUPTI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holder {
    Nobody,
    Watch,
    Program,
}

struct Cupti {
    functions: Option<Functions>,
    holder: Holder,
    /// Ours, or the program's. An address.
    subscriber: usize,
    /// Whether the driver has asked for the watching.
    wanted: bool,
    /// How often the program has taken CUPTI, when it last did, and for how many milliseconds it
    /// had it in all.
    taken: u64,
    taken_at: u64,
    taken_for: u64,
}

static CUPTI: Mutex<Cupti> = Mutex::new(Cupti {
    functions: None,
    holder: Holder::Nobody,
    subscriber: 0,
    wanted: false,
    taken: 0,
    taken_at: 0,
    taken_for: 0,
});

fn cupti() -> MutexGuard<'static, Cupti> {
    CUPTI.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Functions {
    fn of(library: *mut c_void) -> Option<Functions> {
        let find = |name| driver::symbol(library, name);
        // SAFETY: cupti_callbacks.h, cupti_activity.h and cupti_result.h declare the functions of
        // these names with these types
        unsafe {
            Some(Functions {
                subscribe: std::mem::transmute::<*mut c_void, Subscribe>(find("cuptiSubscribe")?),
                unsubscribe: std::mem::transmute::<*mut c_void, Unsubscribe>(find(
                    "cuptiUnsubscribe",
                )?),
                enable: std::mem::transmute::<*mut c_void, Enable>(find("cuptiEnableCallback")?),
                finalize: find("cuptiFinalize")
                    .map(|f| std::mem::transmute::<*mut c_void, Finalize>(f)),
                result_string: find("cuptiGetResultString")
                    .map(|f| std::mem::transmute::<*mut c_void, ResultString>(f)),
            })
        }
    }

    fn text(&self, code: Code) -> String {
        let mut text = std::ptr::null();
        let said = match self.result_string {
            // SAFETY: the pointer is to a pointer
            Some(result_string) => unsafe { result_string(code, &raw mut text) },
            None => UNKNOWN,
        };
        if said != SUCCESS || text.is_null() {
            return format!("CUPTI's error {code}");
        }
        // SAFETY: CUPTI gives a C string that is never freed
        let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
        format!("CUPTI's error {code}, {text}")
    }

    /// Takes CUPTI and asks for the calls that are followed.
    fn take(&self) -> Result<usize, Code> {
        let mut subscriber = std::ptr::null_mut();
        let called: Callback = callback::called;
        // SAFETY: the pointer is to a handle, and the callback has the type that CUPTI calls
        let code = unsafe {
            (self.subscribe)(
                &raw mut subscriber,
                called as *const c_void,
                std::ptr::null_mut(),
            )
        };
        if code != SUCCESS || subscriber.is_null() {
            return Err(if code == SUCCESS { UNKNOWN } else { code });
        }
        for id in calls::ids() {
            // An older CUPTI refuses the ids of functions that it does not know.
            // SAFETY: the subscriber is the one from above
            unsafe { (self.enable)(1, subscriber, DRIVER_CALLS, id) };
        }
        Ok(subscriber.addr())
    }
}

/// Begins to follow the program's calls. The error says in words why that cannot be.
pub(crate) fn start() -> Result<(), String> {
    let candidates = libraries();
    let mut refused = None;
    let mut cupti = cupti();
    cupti.wanted = true;
    if cupti.holder == Holder::Program {
        return Err("the program itself uses CUPTI; watching begins when it has done so".into());
    }
    for library in candidates {
        let Some(functions) = Functions::of(library) else {
            continue;
        };
        match functions.take() {
            Ok(subscriber) => {
                cupti.functions = Some(functions);
                cupti.holder = Holder::Watch;
                cupti.subscriber = subscriber;
                FOLLOWS.store(true, Ordering::Release);
                return Ok(());
            }
            Err(MULTIPLE_SUBSCRIBERS) => {
                return Err("another tool holds CUPTI, which takes one at a time".into());
            }
            Err(code) => refused = Some(functions.text(code)),
        }
    }
    Err(match refused {
        Some(text) => format!("libcupti does not work here: {text}"),
        None => "libcupti was not found; it is in the CUDA toolkit and in PyPI's package \
                 nvidia-cuda-cupti, and FENCEPOST_CUPTI_LIBRARY can name it"
            .into(),
    })
}

/// How often the program's own profiler had CUPTI, for how long in all in milliseconds, and whether
/// it has it now.
pub(crate) fn taken() -> (u64, u64, bool) {
    let cupti = cupti();
    let now = cupti.holder == Holder::Program;
    let current = if now {
        seen::now().saturating_sub(cupti.taken_at)
    } else {
        0
    };
    (cupti.taken, cupti.taken_for + current, now)
}

/// The libraries to try, best first: a second copy of CUPTI beside one that the program has loaded
/// would not share its state.
fn libraries() -> Vec<*mut c_void> {
    const NAMES: &[&str] = &["libcupti.so.13", "libcupti.so.12", "libcupti.so"];
    if std::env::var_os(LIBRARY).is_some() {
        return driver::open(LIBRARY, &[]).into_iter().collect();
    }
    if let Some(loaded) = driver::open(LIBRARY, NAMES) {
        return vec![loaded];
    }
    let by_name = NAMES.iter().map(|name| PathBuf::from(*name));
    by_name
        .chain(installed())
        .filter_map(|path| load(&path))
        .collect()
}

fn load(path: &Path) -> Option<*mut c_void> {
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    // SAFETY: the name is a C string, and the library NVIDIA's
    let library = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_LAZY) };
    (!library.is_null()).then_some(library)
}

/// Where the toolkit and Python's packages have it.
fn installed() -> Vec<PathBuf> {
    let variables = ["CUDA_HOME", "CUDA_PATH"]
        .into_iter()
        .filter_map(std::env::var_os);
    let toolkits = variables
        .map(PathBuf::from)
        .chain([PathBuf::from("/usr/local/cuda")]);
    let mut folders: Vec<PathBuf> = toolkits
        .flat_map(|toolkit| [toolkit.join("extras/CUPTI/lib64"), toolkit.join("lib64")])
        .collect();
    for prefix in python_prefixes() {
        for lib in ["lib", "lib64"] {
            for python in entries(&prefix.join(lib), "python3") {
                for packages in ["site-packages", "dist-packages"] {
                    for package in entries(&python.join(packages).join("nvidia"), "cu") {
                        folders.push(package.join("lib"));
                    }
                }
            }
        }
    }
    let mut found: Vec<PathBuf> = folders
        .iter()
        .flat_map(|folder| entries(folder, "libcupti.so."))
        .collect();
    found.dedup();
    found
}

fn python_prefixes() -> Vec<PathBuf> {
    let environment = std::env::var_os("VIRTUAL_ENV").map(PathBuf::from);
    let program = std::env::current_exe().ok();
    let own = program.and_then(|program| Some(program.parent()?.parent()?.to_path_buf()));
    environment.into_iter().chain(own).collect()
}

/// The entries of a folder whose names begin so, the last in the order of names first.
fn entries(folder: &Path, begin: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let begins = |name: &OsStr| name.as_bytes().starts_with(begin.as_bytes());
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| begins(&entry.file_name()))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found.reverse();
    found
}

/// CUPTI's own functions, for a program that calls them before the driver was initialized.
fn functions(cupti: &mut Cupti) -> Option<Functions> {
    if cupti.functions.is_none() {
        // SAFETY: the name is a C string
        let next = unsafe { libc::dlsym(libc::RTLD_NEXT, c"cuptiSubscribe".as_ptr()) };
        cupti.functions = match next.is_null() {
            false => Functions::of(libc::RTLD_NEXT),
            true => libraries().into_iter().find_map(Functions::of),
        };
    }
    cupti.functions
}

/// Gives CUPTI up, if it is ours. What was seen is not true any more once calls go by unseen.
fn give_up(cupti: &mut Cupti, functions: &Functions) {
    if cupti.holder != Holder::Watch {
        return;
    }
    FOLLOWS.store(false, Ordering::SeqCst);
    let subscriber = std::ptr::with_exposed_provenance_mut(cupti.subscriber);
    // SAFETY: the subscriber is ours
    unsafe { (functions.unsubscribe)(subscriber) };
    cupti.holder = Holder::Nobody;
    seen::lost(None);
    seen::forget_events();
    for thread in seen::threads() {
        thread.inside.store(0, Ordering::Relaxed);
    }
    seen::CAPTURES.store(0, Ordering::SeqCst);
}

/// Takes CUPTI again, if the driver has asked for the watching.
fn take_up(cupti: &mut Cupti, functions: &Functions) {
    if cupti.holder == Holder::Program {
        cupti.taken_for += seen::now().saturating_sub(cupti.taken_at);
    }
    cupti.holder = Holder::Nobody;
    if !cupti.wanted {
        return;
    }
    if let Ok(subscriber) = functions.take() {
        cupti.holder = Holder::Watch;
        cupti.subscriber = subscriber;
        FOLLOWS.store(true, Ordering::Release);
    }
}

/// Takes CUPTI again where the program has given it up by ending all subscriptions. Not at that
/// call, which CUPTI permits inside a callback.
pub(crate) fn try_again() {
    let mut cupti = cupti();
    if let (Holder::Nobody, true, Some(functions)) = (cupti.holder, cupti.wanted, cupti.functions)
        && cupti.taken != 0
    {
        take_up(&mut cupti, &functions);
    }
}

/// CUPTI's function of this name, for the program's own profiler: it gets CUPTI from the watching.
///
/// # Safety
/// As CUPTI's documentation says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuptiSubscribe(
    subscriber: *mut *mut c_void,
    callback: *const c_void,
    user: *mut c_void,
) -> c_int {
    let mut cupti = cupti();
    let Some(functions) = functions(&mut cupti) else {
        return UNKNOWN;
    };
    give_up(&mut cupti, &functions);
    // SAFETY: the caller vouches for the arguments
    let code = unsafe { (functions.subscribe)(subscriber, callback, user) };
    if code == SUCCESS {
        cupti.holder = Holder::Program;
        cupti.taken += 1;
        cupti.taken_at = seen::now();
    } else {
        take_up(&mut cupti, &functions);
    }
    code
}

/// CUPTI's function of this name, for the program's own profiler: the watching goes on.
///
/// # Safety
/// As CUPTI's documentation says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuptiUnsubscribe(subscriber: *mut c_void) -> c_int {
    let mut cupti = cupti();
    let Some(functions) = functions(&mut cupti) else {
        return UNKNOWN;
    };
    // SAFETY: the caller vouches for the argument
    let code = unsafe { (functions.unsubscribe)(subscriber) };
    if code == SUCCESS && cupti.holder == Holder::Program {
        take_up(&mut cupti, &functions);
    }
    code
}

/// CUPTI's function of this name, for the program's own profiler. It ends every subscription.
///
/// # Safety
/// As CUPTI's documentation says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuptiFinalize() -> c_int {
    let mut cupti = cupti();
    let Some(functions) = functions(&mut cupti) else {
        return UNKNOWN;
    };
    give_up(&mut cupti, &functions);
    // SAFETY: the caller vouches for it
    let code = functions
        .finalize
        .map_or(UNKNOWN, |finalize| unsafe { finalize() });
    if cupti.holder == Holder::Program {
        cupti.taken_for += seen::now().saturating_sub(cupti.taken_at);
        cupti.holder = Holder::Nobody;
    }
    cupti.taken = cupti.taken.max(1);
    code
}
