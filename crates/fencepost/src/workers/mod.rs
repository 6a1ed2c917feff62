//! The library's own threads for host work: a pool of workers, the queue of user callbacks that
//! every backend runs on such a pool, and the thread that looks after deadlines.

mod callbacks;
mod deadlines;
mod monitor;
mod pool;
mod probe;
mod state;

pub(crate) use callbacks::CallbackQueue;
pub(crate) use deadlines::{Deadline, Deadlines, Expire};
pub(crate) use pool::{MAX_THREADS, Pool};
pub(crate) use probe::coarse_nanos;
pub(crate) use state::Task;
