//! How many calls were made and how many ran, per method.

/// The calls a process made to one method.
#[farcall::data]
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CallCount {
    /// `Payment.pay`
    pub(crate) method: String,
    /// Counted by the caller before it makes the call.
    pub(crate) attempted: u64,
    /// Ended with a result.
    pub(crate) ok: u64,
    /// Ended with the application's error.
    pub(crate) app_error: u64,
    /// Failed, and certainly did not run.
    pub(crate) not_executed: u64,
    /// Failed, and nobody knows whether it ran.
    pub(crate) uncertain: u64,
}

impl CallCount {
    /// Calls that the provider answered.
    pub(crate) fn answered(&self) -> u64 {
        self.ok + self.app_error
    }

    /// Calls that failed.
    pub(crate) fn failed(&self) -> u64 {
        self.not_executed + self.uncertain
    }
}

/// The calls of one method that ran in a process.
#[farcall::data]
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RunCount {
    /// `Payment.pay`
    pub(crate) method: String,
    /// With a result.
    pub(crate) ok: u64,
    /// With the application's error.
    pub(crate) app_error: u64,
    /// With a system error.
    pub(crate) failed: u64,
}

impl RunCount {
    /// Handlers that ran.
    pub(crate) fn executed(&self) -> u64 {
        self.ok + self.app_error + self.failed
    }
}
