//! What fails with a lost context, without any OpenCL.
//!
//! # The protocol
//!
//! | thread | first | then |
//! |---|---|---|
//! | [`declare`](Lost::declare): the context is lost | sets the cause | fails every account that it finds |
//! | [`add`](Lost::add): a new stream | adds its account | [`check`](Lost::check) |
//! | whoever starts a new timeline | puts it into the account | [`check`](Lost::check) |
//!
//! *Invariant: once both threads are through, the account's timeline has failed.* Each of them
//! writes first and looks afterwards. So either `declare` finds the account with its new timeline,
//! or `check` finds the cause.
//!
//! `loom_tests` explores it.

use std::sync::Arc;

use super::account::Unsettled;
use crate::{
    core::{Loss, Streams},
    error::{Cause, Error, Result},
};

pub(super) struct Lost {
    /// Of the device.
    name: String,
    loss: Loss,
    accounts: Streams<dyn Unsettled>,
}

impl Lost {
    pub(super) fn new(name: String) -> Lost {
        Lost {
            name,
            loss: Loss::new(),
            accounts: Streams::new(),
        }
    }

    /// Of the device.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The error of every call, once the context is lost.
    pub(super) fn error(&self) -> Option<Error> {
        self.loss.error(&self.name)
    }

    /// `account` fails with the context, also where that is lost already.
    pub(super) fn add(&self, account: &Arc<dyn Unsettled>) {
        self.accounts.add(account);
        let _ = self.check(&**account);
    }

    /// An error where the context is lost; then `account` has failed. Whoever starts a new timeline
    /// calls it afterwards.
    pub(super) fn check(&self, account: &dyn Unsettled) -> Result<()> {
        match self.error() {
            None => Ok(()),
            Some(lost) => {
                account.lose(&Cause::of(&lost));
                Err(lost)
            }
        }
    }

    /// The context is lost, by `cause` if nothing was its cause before. Call it without any lock:
    /// it fires waiters.
    pub(super) fn declare(&self, cause: impl FnOnce() -> Cause) -> Error {
        self.loss.declare(&self.name, cause, |cause| {
            for account in self.accounts.alive() {
                account.lose(cause);
            }
        })
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::{
        opencl::account::{Account, loom_tests::Fake},
        sync::thread,
        timeline::loom_tests::stream_core,
    };

    fn account() -> Arc<Account<Fake>> {
        Account::new(stream_core())
    }

    /// The context is lost while another thread runs `beside`.
    fn lose_beside(lost: &Arc<Lost>, beside: impl FnOnce()) {
        let losing = {
            let lost = lost.clone();
            thread::spawn(move || drop(lost.declare(|| Cause::new("x"))))
        };
        beside();
        losing.join().unwrap();
    }

    fn is_lost(account: &Account<Fake>) -> bool {
        let failure = account.timeline().failure();
        matches!(failure, Some(Error::DeviceLost { cause, .. }) if cause.root() == "x")
    }

    #[test]
    fn a_stream_that_is_made_beside_a_loss_fails_with_it() {
        loom::model(|| {
            let lost = Arc::new(Lost::new("a device".into()));
            let account = account();
            lose_beside(&lost, || {
                let account: Arc<dyn Unsettled> = account.clone();
                lost.add(&account);
            });
            assert!(is_lost(&account));
        });
    }

    #[test]
    fn an_error_that_is_cleared_beside_a_loss_is_followed_by_it() {
        loom::model(|| {
            let lost = Arc::new(Lost::new("a device".into()));
            let account = account();
            let known: Arc<dyn Unsettled> = account.clone();
            lost.add(&known);
            account.fail(&Cause::new("of the stream"));
            lose_beside(&lost, || {
                account.start_new_epoch();
                let _ = lost.check(&*account);
            });
            assert!(is_lost(&account));
        });
    }

    #[test]
    fn two_threads_that_find_a_loss_tell_one_cause() {
        loom::model(|| {
            let lost = Arc::new(Lost::new("a device".into()));
            let account = account();
            let known: Arc<dyn Unsettled> = account.clone();
            lost.add(&known);
            let mut mine = None;
            lose_beside(&lost, || mine = Some(lost.declare(|| Cause::new("y"))));
            let cause = |error: Option<Error>| error?.cause().map(|cause| cause.root().to_owned());
            let (mine, first) = (cause(mine), cause(account.timeline().failure()));
            assert!(first.is_some());
            assert_eq!(mine, first);
        });
    }
}
