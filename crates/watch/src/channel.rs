//! The socket to `fencepost watch`: one message a line, in JSON. Where nobody listens, messages are
//! dropped.

use std::{
    io::Read,
    mem::ManuallyDrop,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering},
    time::Duration,
};

use serde::Serialize;

/// The variable that names the socket.
pub(crate) const SOCKET: &str = "FENCEPOST_WATCH_SOCKET";

/// The descriptor, for [`wake`]; -1: none.
static DESCRIPTOR: AtomicI32 = AtomicI32::new(-1);
/// The number of the socket's file.
static NUMBER: AtomicU64 = AtomicU64::new(0);
/// Whether the process ends.
static ENDING: AtomicBool = AtomicBool::new(false);

/// Ends a call of [`Channel::is_asked`] at once, and each later one.
pub(crate) fn wake() {
    ENDING.store(true, Ordering::SeqCst);
    let descriptor = DESCRIPTOR.load(Ordering::SeqCst);
    if identity(descriptor).is_some_and(|(_, number)| number == NUMBER.load(Ordering::SeqCst)) {
        // SAFETY: it is our socket
        unsafe { libc::shutdown(descriptor, libc::SHUT_RD) };
    }
}

/// A message. `fencepost watch` knows some by how their lines begin.
#[derive(Serialize)]
struct Line<'a, M> {
    kind: &'a str,
    pid: u32,
    message: M,
}

#[derive(Debug)]
pub(crate) struct Channel {
    /// Never closed: the descriptor may be the program's by then.
    stream: ManuallyDrop<UnixStream>,
    /// Device and number of the socket's file. The program may close descriptors that are not its
    /// own, as daemons do, and open a file under the same number.
    identity: (u64, u64),
}

/// Descriptors below are the program's: it may rely on which numbers it gets.
pub(crate) const LOWEST: i32 = 500;

impl Channel {
    pub(crate) fn open() -> Option<Channel> {
        let path = std::env::var_os(SOCKET)?;
        let stream = UnixStream::connect(path).ok()?;
        // SAFETY: the descriptor is open
        let high = unsafe { libc::fcntl(stream.as_raw_fd(), libc::F_DUPFD_CLOEXEC, LOWEST) };
        let stream = match high {
            -1 => stream,
            // SAFETY: the descriptor is new, and nobody else's
            high => UnixStream::from(unsafe { OwnedFd::from_raw_fd(high) }),
        };
        stream
            .set_write_timeout(Some(Duration::from_secs(5)))
            .ok()?;
        let identity = identity(stream.as_raw_fd())?;
        NUMBER.store(identity.1, Ordering::SeqCst);
        DESCRIPTOR.store(stream.as_raw_fd(), Ordering::SeqCst);
        let stream = ManuallyDrop::new(stream);
        Some(Channel { stream, identity })
    }

    fn is_ours(&self) -> bool {
        identity(self.stream.as_raw_fd()) == Some(self.identity)
    }

    pub(crate) fn send(&mut self, kind: &str, message: impl Serialize) {
        let pid = std::process::id();
        let line = Line { kind, pid, message };
        if self.is_ours()
            && let Ok(mut line) = serde_json::to_vec(&line)
        {
            line.push(b'\n');
            self.write(&line);
        }
    }

    /// Without a signal where nobody reads any more.
    fn write(&self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (data, len) = (bytes.as_ptr().cast(), bytes.len());
            let descriptor = self.stream.as_raw_fd();
            // SAFETY: the pointer is to that many bytes
            let sent = unsafe { libc::send(descriptor, data, len, libc::MSG_NOSIGNAL) };
            match usize::try_from(sent) {
                Ok(sent) if sent > 0 => bytes = &bytes[sent..],
                _ => return,
            }
        }
    }

    /// Whether a report is asked for within `limit`. Sleeps for as long.
    pub(crate) fn is_asked(&mut self, limit: Duration) -> bool {
        if ENDING.load(Ordering::SeqCst) {
            return false;
        }
        if !self.is_ours() || self.stream.set_read_timeout(Some(limit)).is_err() {
            std::thread::sleep(limit);
            return false;
        }
        let mut bytes = [0; 64];
        match self.stream.read(&mut bytes) {
            // Nobody listens any more, or the process ends.
            Ok(0) => {
                if !ENDING.load(Ordering::SeqCst) {
                    std::thread::sleep(limit);
                }
                false
            }
            Ok(_) => true,
            Err(_) => false,
        }
    }
}

/// Device and number of an open file; `None` where the descriptor is not open.
pub(crate) fn identity(descriptor: i32) -> Option<(u64, u64)> {
    let mut facts = std::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: the pointer is to a stat
    if unsafe { libc::fstat(descriptor, facts.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: fstat has succeeded
    let facts = unsafe { facts.assume_init() };
    Some((facts.st_dev, facts.st_ino))
}
