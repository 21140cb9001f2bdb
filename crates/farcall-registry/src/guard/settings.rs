//! What can be set, each with its cost.

use std::time::Duration;

/// The times and limits of the guard.
///
/// ```
/// use std::time::Duration;
/// use farcall_registry::GuardSettings;
/// let eager = GuardSettings { pull: Duration::from_secs(5), ..GuardSettings::default() };
/// assert_eq!(eager.call, Duration::from_secs(5));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardSettings {
    /// How often a list is compared with the backend's, which finds what pushes missed. Each pause differs by up to a fifth. Default
    /// 30 s; costs one listing per service, consumer and backend.
    pub pull: Duration,
    /// How often a provider asks whether its entry is still there. Each pause differs by up to a fifth. Default 30 s.
    pub check: Duration,
    /// The longest pause after the first failure to subscribe or to publish; it doubles with each further one, and the pause itself is
    /// a random share of it. Default 200 ms.
    pub retry_base: Duration,
    /// The longest pause after any number of failures. Default 10 s.
    pub retry_cap: Duration,
    /// The most that one call of a backend may take; then it counts as failed, whatever the backend does. Default 5 s.
    pub call: Duration,
    /// How long an entry is kept that no backend lists any more, that nobody withdrew and that does not refuse connections. Default
    /// 10 min. After that it goes, unless it is all there is: silence does not empty a list.
    pub suspect: Duration,
    /// The pause between two looks at an entry that is suspect, at first; it doubles up to 32 times as much. Default 1 s.
    pub probe: Duration,
    /// How long a withdrawal outweighs backends that still list the entry. Default 60 s: longer than any lease.
    pub tombstone: Duration,
    /// The most entries of one service. Default 20 000; what is beyond it is passed over.
    pub entries: usize,
}

/// The most looks at suspect entries at a time, of one list.
pub const MOST_PROBES: usize = 8;
/// The most withdrawals that one list remembers; the oldest are forgotten first.
pub const MOST_TOMBSTONES: usize = 1024;

impl Default for GuardSettings {
    fn default() -> GuardSettings {
        GuardSettings {
            pull: Duration::from_secs(30),
            check: Duration::from_secs(30),
            retry_base: Duration::from_millis(200),
            retry_cap: Duration::from_secs(10),
            call: Duration::from_secs(5),
            suspect: Duration::from_secs(600),
            probe: Duration::from_secs(1),
            tombstone: Duration::from_secs(60),
            entries: 20_000,
        }
    }
}
