//! How many calls were made and how many ran, per method.

/// The calls a process made, and those that ran in it.
#[farcall::data]
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CallBook {
    /// By method.
    pub(crate) calls: Vec<CallCount>,
    /// By method.
    pub(crate) runs: Vec<RunCount>,
}

impl CallBook {
    /// What two processes did together.
    pub(crate) fn and(mut self, other: &CallBook) -> CallBook {
        for call in &other.calls {
            match self.calls.iter_mut().find(|own| own.method == call.method) {
                Some(own) => own.add(call),
                None => self.calls.push(call.clone()),
            }
        }
        for run in &other.runs {
            match self.runs.iter_mut().find(|own| own.method == run.method) {
                Some(own) => own.add(run),
                None => self.runs.push(run.clone()),
            }
        }
        self
    }

    /// What was counted of a method that ran.
    pub(crate) fn run(&self, method: &str) -> RunCount {
        self.runs.iter().find(|run| run.method == method).cloned().unwrap_or_default()
    }

    /// What was counted of a method that was called.
    pub(crate) fn call(&self, method: &str) -> CallCount {
        self.calls.iter().find(|call| call.method == method).cloned().unwrap_or_default()
    }
}

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

    fn add(&mut self, other: &CallCount) {
        self.attempted += other.attempted;
        self.ok += other.ok;
        self.app_error += other.app_error;
        self.not_executed += other.not_executed;
        self.uncertain += other.uncertain;
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

    fn add(&mut self, other: &RunCount) {
        self.ok += other.ok;
        self.app_error += other.app_error;
        self.failed += other.failed;
    }
}
