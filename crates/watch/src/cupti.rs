//! CUPTI: found at run time, subscribed to, and shared with the program's own profiler.
//!
//! CUPTI takes one subscriber. `fencepost watch` preloads this library, so that the program's own
//! calls of CUPTI's functions for subscribers come here first, unless it looks them up in CUPTI's
//! library itself. So there is one subscription, this library's, and a callback is passed on to the
//! program's profiler where that has asked for it: both see everything.
//!
//! <https://docs.nvidia.com/cupti/main/main.html#callback-api>

use std::{
    ffi::{CStr, CString, OsStr, c_char, c_int, c_uint, c_void},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use crate::{
    callback::{self, CallbackData, DRIVER_CALLS, FOLLOWS},
    calls, driver, seen, threads,
};

type Code = c_int;
type Callback = unsafe extern "C" fn(*mut c_void, c_int, c_uint, *const CallbackData);
type Subscribe = unsafe extern "C" fn(*mut *mut c_void, *const c_void, *mut c_void) -> Code;
type Unsubscribe = unsafe extern "C" fn(*mut c_void) -> Code;
type Enable = unsafe extern "C" fn(c_uint, *mut c_void, c_int, c_uint) -> Code;
type EnableDomain = unsafe extern "C" fn(c_uint, *mut c_void, c_int) -> Code;
type State = unsafe extern "C" fn(*mut c_uint, *mut c_void, c_int, c_uint) -> Code;
type Finalize = unsafe extern "C" fn() -> Code;
type ResultString = unsafe extern "C" fn(Code, *mut *const c_char) -> Code;

const SUCCESS: Code = 0;
const INVALID_PARAMETER: Code = 1;
const MULTIPLE_SUBSCRIBERS: Code = 39;
const UNKNOWN: Code = 999;

/// The variable that names CUPTI's library, if it is not to be searched.
const LIBRARY: &str = "FENCEPOST_CUPTI_LIBRARY";

#[derive(Clone, Copy, Debug)]
struct Functions {
    subscribe: Subscribe,
    unsubscribe: Unsubscribe,
    enable: Enable,
    enable_domain: Option<EnableDomain>,
    state: Option<State>,
    finalize: Option<Finalize>,
    result_string: Option<ResultString>,
}

struct Cupti {
    functions: Option<Functions>,
    /// The address of the subscription's handle; 0: there is none.
    subscriber: usize,
    /// Whether the driver has asked for the watching.
    wanted: bool,
    /// Whether the program's own profiler has subscribed.
    guest: bool,
    /// Whether the program has ended all use of CUPTI, and the watching did not go on yet.
    ended: bool,
    /// How often that has happened, when it last did, and for how many milliseconds calls went by
    /// unseen in all.
    ends: u64,
    ended_at: u64,
    unseen_for: u64,
}

static CUPTI: Mutex<Cupti> = Mutex::new(Cupti {
    functions: None,
    subscriber: 0,
    wanted: false,
    guest: false,
    ended: false,
    ends: 0,
    ended_at: 0,
    unseen_for: 0,
});

/// The program's own callback, and what it has asked for.
struct Guest {
    is_there: AtomicBool,
    callback: AtomicUsize,
    user: AtomicUsize,
    /// A bit for each callback id of each domain.
    enabled: [[AtomicU64; WORDS]; DOMAINS],
}

const WORDS: usize = 32;
/// `CUPTI_CB_DOMAIN_SIZE`, with room.
const DOMAINS: usize = 8;

static GUEST: Guest = Guest {
    is_there: AtomicBool::new(false),
    callback: AtomicUsize::new(0),
    user: AtomicUsize::new(0),
    enabled: [const { [const { AtomicU64::new(0) }; WORDS] }; DOMAINS],
};

impl Guest {
    fn bit(&self, domain: c_int, id: c_uint) -> Option<(&AtomicU64, u64)> {
        let words = self.enabled.get(usize::try_from(domain).ok()?)?;
        Some((words.get(id as usize / 64)?, 1 << (id % 64)))
    }

    fn has(&self, domain: c_int, id: c_uint) -> bool {
        self.bit(domain, id)
            .is_some_and(|(word, bit)| word.load(Ordering::Acquire) & bit != 0)
    }

    fn set(&self, on: bool, domain: c_int, id: c_uint) {
        if let Some((word, bit)) = self.bit(domain, id) {
            match on {
                true => word.fetch_or(bit, Ordering::AcqRel),
                false => word.fetch_and(!bit, Ordering::AcqRel),
            };
        }
    }

    fn set_domain(&self, on: bool, domain: c_int) {
        let words = usize::try_from(domain)
            .ok()
            .and_then(|at| self.enabled.get(at));
        for word in words.into_iter().flatten() {
            word.store(if on { u64::MAX } else { 0 }, Ordering::Release);
        }
    }

    fn leave(&self) {
        self.is_there.store(false, Ordering::SeqCst);
        (0..DOMAINS).for_each(|domain| self.set_domain(false, domain as c_int));
    }
}

/// The one subscriber's callback.
unsafe extern "C" fn called(
    _user: *mut c_void,
    domain: c_int,
    id: c_uint,
    data: *const CallbackData,
) {
    if domain == DRIVER_CALLS && FOLLOWS.load(Ordering::Relaxed) {
        // SAFETY: CUPTI gives this data for calls of the driver
        unsafe { callback::called(id, data) };
    }
    if GUEST.is_there.load(Ordering::Acquire) && GUEST.has(domain, id) {
        let callback = GUEST.callback.load(Ordering::Acquire);
        let user = std::ptr::with_exposed_provenance_mut(GUEST.user.load(Ordering::Acquire));
        // SAFETY: the program gave a function of this type, and has asked for this call
        unsafe {
            let callback = std::mem::transmute::<usize, Callback>(callback);
            callback(user, domain, id, data);
        }
    }
}

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
                enable_domain: find("cuptiEnableDomain")
                    .map(|f| std::mem::transmute::<*mut c_void, EnableDomain>(f)),
                state: find("cuptiGetCallbackState")
                    .map(|f| std::mem::transmute::<*mut c_void, State>(f)),
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

    fn subscribe(&self) -> Result<usize, Code> {
        let mut subscriber = std::ptr::null_mut();
        let callback: Callback = called;
        let callback = callback as *const c_void;
        // SAFETY: the pointer is to a handle, and the callback has the type that CUPTI calls
        let code = unsafe { (self.subscribe)(&raw mut subscriber, callback, std::ptr::null_mut()) };
        match (code, subscriber.is_null()) {
            (SUCCESS, false) => Ok(subscriber.expose_provenance()),
            (SUCCESS, true) => Err(UNKNOWN),
            (code, _) => Err(code),
        }
    }

    fn set(&self, on: bool, subscriber: usize, domain: c_int, id: c_uint) -> Code {
        let subscriber = std::ptr::with_exposed_provenance_mut(subscriber);
        // SAFETY: the subscriber is ours
        unsafe { (self.enable)(on.into(), subscriber, domain, id) }
    }

    fn set_domain(&self, on: bool, subscriber: usize, domain: c_int) -> Code {
        let subscriber = std::ptr::with_exposed_provenance_mut(subscriber);
        match self.enable_domain {
            // SAFETY: the subscriber is ours
            Some(enable_domain) => unsafe { enable_domain(on.into(), subscriber, domain) },
            None => UNKNOWN,
        }
    }

    /// Asks for the calls that are followed. An older CUPTI refuses the ids of functions that it
    /// does not know.
    fn follow(&self, subscriber: usize) {
        for id in calls::ids() {
            self.set(true, subscriber, DRIVER_CALLS, id);
        }
        FOLLOWS.store(true, Ordering::Release);
    }
}

/// Begins to follow the program's calls. The error says in words why that cannot be.
pub(crate) fn start() -> Result<(), String> {
    let mut cupti = cupti();
    cupti.wanted = true;
    if let (Some(functions), true) = (cupti.functions, cupti.subscriber != 0) {
        functions.follow(cupti.subscriber);
        return Ok(());
    }
    let mut refused = None;
    for functions in libraries().into_iter().filter_map(Functions::of) {
        match functions.subscribe() {
            Ok(subscriber) => {
                cupti.functions = Some(functions);
                cupti.subscriber = subscriber;
                functions.follow(subscriber);
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

/// Goes on where the program has ended all use of CUPTI. Not at that call, which CUPTI permits
/// inside a callback.
pub(crate) fn try_again() {
    let mut cupti = cupti();
    let Some(functions) = cupti.functions.filter(|_| cupti.ended && cupti.wanted) else {
        return;
    };
    if cupti.subscriber == 0 {
        let Ok(subscriber) = functions.subscribe() else {
            return;
        };
        cupti.subscriber = subscriber;
    }
    cupti.ended = false;
    cupti.unseen_for += seen::now().saturating_sub(cupti.ended_at);
    functions.follow(cupti.subscriber);
}

/// How often the program has ended all use of CUPTI, for how many milliseconds calls went by unseen
/// after it, and whether they still do.
pub(crate) fn unseen() -> (u64, u64, bool) {
    let cupti = cupti();
    let current = match cupti.ended {
        true => seen::now().saturating_sub(cupti.ended_at),
        false => 0,
    };
    (cupti.ends, cupti.unseen_for + current, cupti.ended)
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

impl Cupti {
    /// Whether the handle is that of the program's profiler.
    fn is_guest(&self, subscriber: *mut c_void) -> bool {
        self.guest && subscriber.addr() == self.subscriber
    }

    /// Whether the watching needs this callback.
    fn needs(&self, domain: c_int, id: c_uint) -> bool {
        self.wanted && domain == DRIVER_CALLS && calls::ids().any(|followed| followed == id)
    }

    fn set_domain(&self, functions: &Functions, on: bool, domain: c_int) -> Code {
        let code = match !on && self.wanted && domain == DRIVER_CALLS {
            true => self.leave_driver_calls(functions),
            false => functions.set_domain(on, self.subscriber, domain),
        };
        if code == SUCCESS {
            GUEST.set_domain(on, domain);
        }
        code
    }

    /// Switches off what the program's profiler has asked for and the watching does not need, one
    /// by one: what the watching needs stays on, so that no call goes by unseen.
    fn leave_driver_calls(&self, functions: &Functions) -> Code {
        let mut needed = [0_u64; WORDS];
        for id in calls::ids() {
            needed[id as usize / 64] |= 1 << (id % 64);
        }
        let ids = 0..WORDS as c_uint * 64;
        let is_needed = |id: &c_uint| needed[*id as usize / 64] & (1 << (id % 64)) != 0;
        for id in ids.filter(|id| GUEST.has(DRIVER_CALLS, *id) && !is_needed(id)) {
            // CUPTI refuses ids that it does not know, which are never called.
            functions.set(false, self.subscriber, DRIVER_CALLS, id);
        }
        SUCCESS
    }
}

/// The domains of callbacks, from `CUPTI_CB_DOMAIN_DRIVER_API` to `CUPTI_CB_DOMAIN_STATE`.
const ALL_DOMAINS: std::ops::RangeInclusive<c_int> = 1..=6;

/// CUPTI's function of this name, for the program's own profiler, which shares the subscription.
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
    if subscriber.is_null() || callback.is_null() {
        return INVALID_PARAMETER;
    }
    if cupti.guest {
        return MULTIPLE_SUBSCRIBERS;
    }
    if cupti.subscriber == 0 {
        match functions.subscribe() {
            Ok(subscriber) => cupti.subscriber = subscriber,
            Err(code) => return code,
        }
    }
    cupti.guest = true;
    GUEST
        .callback
        .store(callback.expose_provenance(), Ordering::SeqCst);
    GUEST.user.store(user.expose_provenance(), Ordering::SeqCst);
    GUEST.is_there.store(true, Ordering::SeqCst);
    // SAFETY: the caller vouches for the pointer
    unsafe { subscriber.write(std::ptr::with_exposed_provenance_mut(cupti.subscriber)) };
    SUCCESS
}

/// CUPTI's function of this name, for the program's own profiler.
///
/// # Safety
/// As CUPTI's documentation says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuptiUnsubscribe(subscriber: *mut c_void) -> c_int {
    let mut cupti = cupti();
    let Some(functions) = functions(&mut cupti) else {
        return UNKNOWN;
    };
    if !cupti.is_guest(subscriber) {
        // SAFETY: the caller vouches for the argument
        return unsafe { (functions.unsubscribe)(subscriber) };
    }
    GUEST.is_there.store(false, Ordering::SeqCst);
    cupti.guest = false;
    if cupti.wanted {
        for domain in ALL_DOMAINS {
            cupti.set_domain(&functions, false, domain);
        }
        GUEST.leave();
        return SUCCESS;
    }
    GUEST.leave();
    cupti.subscriber = 0;
    // SAFETY: the subscription is for the program alone
    unsafe { (functions.unsubscribe)(subscriber) }
}

/// CUPTI's function of this name, for the program's own profiler.
///
/// # Safety
/// As CUPTI's documentation says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuptiEnableCallback(
    enable: c_uint,
    subscriber: *mut c_void,
    domain: c_int,
    id: c_uint,
) -> c_int {
    let mut cupti = cupti();
    let Some(functions) = functions(&mut cupti) else {
        return UNKNOWN;
    };
    if !cupti.is_guest(subscriber) {
        // SAFETY: the caller vouches for the arguments
        return unsafe { (functions.enable)(enable, subscriber, domain, id) };
    }
    let on = enable != 0;
    let code = match cupti.needs(domain, id) {
        true => SUCCESS,
        false => functions.set(on, cupti.subscriber, domain, id),
    };
    if code == SUCCESS {
        GUEST.set(on, domain, id);
    }
    code
}

/// CUPTI's function of this name, for the program's own profiler.
///
/// # Safety
/// As CUPTI's documentation says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuptiEnableDomain(
    enable: c_uint,
    subscriber: *mut c_void,
    domain: c_int,
) -> c_int {
    let mut cupti = cupti();
    let Some(functions) = functions(&mut cupti) else {
        return UNKNOWN;
    };
    match (cupti.is_guest(subscriber), functions.enable_domain) {
        (true, _) => cupti.set_domain(&functions, enable != 0, domain),
        // SAFETY: the caller vouches for the arguments
        (false, Some(enable_domain)) => unsafe { enable_domain(enable, subscriber, domain) },
        (false, None) => UNKNOWN,
    }
}

/// CUPTI's function of this name, for the program's own profiler.
///
/// # Safety
/// As CUPTI's documentation says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuptiEnableAllDomains(enable: c_uint, subscriber: *mut c_void) -> c_int {
    let mut first = SUCCESS;
    for domain in ALL_DOMAINS {
        // SAFETY: the caller vouches for the arguments
        let code = unsafe { cuptiEnableDomain(enable, subscriber, domain) };
        // An older CUPTI does not know the last.
        if first == SUCCESS && domain < 6 {
            first = code;
        }
    }
    first
}

/// CUPTI's function of this name, for the program's own profiler.
///
/// # Safety
/// As CUPTI's documentation says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuptiGetCallbackState(
    enable: *mut c_uint,
    subscriber: *mut c_void,
    domain: c_int,
    id: c_uint,
) -> c_int {
    let mut cupti = cupti();
    let Some(functions) = functions(&mut cupti) else {
        return UNKNOWN;
    };
    match (cupti.is_guest(subscriber), functions.state) {
        (true, _) if enable.is_null() => INVALID_PARAMETER,
        (true, _) => {
            // SAFETY: the caller vouches for the pointer
            unsafe { enable.write(GUEST.has(domain, id).into()) };
            SUCCESS
        }
        // SAFETY: the caller vouches for the arguments
        (false, Some(state)) => unsafe { state(enable, subscriber, domain, id) },
        (false, None) => UNKNOWN,
    }
}

/// CUPTI's function of this name, for the program's own profiler. It ends every subscription. The
/// watching begins anew soon after; what was seen before is not true any more.
///
/// # Safety
/// As CUPTI's documentation says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuptiFinalize() -> c_int {
    let mut cupti = cupti();
    let Some(functions) = functions(&mut cupti) else {
        return UNKNOWN;
    };
    FOLLOWS.store(false, Ordering::SeqCst);
    GUEST.leave();
    // SAFETY: the caller vouches for it
    let code = functions
        .finalize
        .map_or(UNKNOWN, |finalize| unsafe { finalize() });
    cupti.subscriber = 0;
    cupti.guest = false;
    if cupti.wanted && !cupti.ended {
        cupti.ended = true;
        cupti.ends += 1;
        cupti.ended_at = seen::now();
        threads::forget_all();
    }
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was switched off: ids, and whole domains.
    static OFF: Mutex<(Vec<c_uint>, Vec<c_int>)> = Mutex::new((Vec::new(), Vec::new()));

    unsafe extern "C" fn enable(on: c_uint, _: *mut c_void, _: c_int, id: c_uint) -> Code {
        if on == 0 {
            OFF.lock().unwrap().0.push(id);
        }
        SUCCESS
    }

    unsafe extern "C" fn enable_domain(on: c_uint, _: *mut c_void, domain: c_int) -> Code {
        if on == 0 {
            OFF.lock().unwrap().1.push(domain);
        }
        SUCCESS
    }

    unsafe extern "C" fn subscribe(_: *mut *mut c_void, _: *const c_void, _: *mut c_void) -> Code {
        UNKNOWN
    }

    unsafe extern "C" fn unsubscribe(_: *mut c_void) -> Code {
        UNKNOWN
    }

    #[test]
    fn what_the_watching_needs_stays_on_where_a_profiler_leaves() {
        const RUNTIME_CALLS: c_int = 2;
        const EVENT_QUERY: c_uint = 120;

        let functions = Functions {
            subscribe,
            unsubscribe,
            enable,
            enable_domain: Some(enable_domain),
            state: None,
            finalize: None,
            result_string: None,
        };
        let cupti = Cupti {
            functions: Some(functions),
            subscriber: 1,
            wanted: true,
            guest: true,
            ended: false,
            ends: 0,
            ended_at: 0,
            unseen_for: 0,
        };
        for domain in [DRIVER_CALLS, RUNTIME_CALLS] {
            assert_eq!(cupti.set_domain(&functions, true, domain), SUCCESS);
            assert_eq!(cupti.set_domain(&functions, false, domain), SUCCESS);
        }
        let (ids, domains) = &*OFF.lock().unwrap();
        assert_eq!(*domains, [RUNTIME_CALLS]);
        assert!(ids.contains(&EVENT_QUERY));
        assert!(calls::ids().all(|needed| !ids.contains(&needed)));
        assert!(!GUEST.has(DRIVER_CALLS, EVENT_QUERY));
    }
}
