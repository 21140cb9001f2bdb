//! What a node takes, by name: nobody can make it grow without end.

use std::time::Duration;

/// The limits and times of a registry node. See `docs/limits.md`.
///
/// ```
/// use farcall_registry::embedded::RegistryLimits;
/// let quick = RegistryLimits { lease: std::time::Duration::from_secs(2), ..RegistryLimits::default() };
/// assert_eq!(quick.entries, 1_000_000);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryLimits {
    /// How long entries are kept when nothing is heard of their provider. Default 15 s, at least 100 ms. It renews three times in
    /// that time. As long as this after its start a node says that its listings are incomplete, and lets nothing expire.
    pub lease: Duration,
    /// The first pause between two pushes about a service that keeps changing; it doubles up to `push_most`. Default 20 ms.
    pub push_least: Duration,
    /// The longest such pause. Default 500 ms.
    pub push_most: Duration,
    /// Changes of one service that are kept for readers who are behind; those further behind get all of it. Default 64.
    pub log: usize,
    /// Bytes of an entry. Default 64 KiB.
    pub entry_bytes: usize,
    /// Labels of an entry, and of its `params`. Default 64.
    pub labels: usize,
    /// Bytes of a name: service, group, version, namespace, label, application. Default 512.
    pub name_bytes: usize,
    /// Addresses of an entry. Default 16.
    pub addresses: usize,
    /// Methods of an entry. Default 1 024.
    pub methods: usize,
    /// Sessions open at a time, those whose connection is lost included. Default 100 000.
    pub sessions: usize,
    /// Connections from one address (IPv6: one /64 network). Default 5 000; more where many programs come from behind one address.
    pub connections_per_host: usize,
    /// Entries of one session. Default 10 000.
    pub session_entries: usize,
    /// Services in which one session has entries. Default 1 000.
    pub session_services: usize,
    /// Entries of one caller in all its sessions: of an identity, or of a host if callers are not asked who they are. Default 200 000.
    pub caller_entries: usize,
    /// Services in which one caller has entries. Default 10 000.
    pub caller_services: usize,
    /// Entries in all. Default 1 000 000.
    pub entries: usize,
    /// Services known in all. Default 100 000.
    pub services: usize,
    /// Bytes of entries in all. Default 512 MiB.
    pub bytes: usize,
    /// Subscriptions in all. Default 100 000.
    pub subscriptions: usize,
    /// Subscriptions of one caller, so that nobody takes all of them, and all `services` with them. Default 50 000.
    pub caller_subscriptions: usize,
    /// Rules of one service. Default 64.
    pub rules: usize,
    /// Bytes of a rule's text. Default 64 KiB.
    pub rule_bytes: usize,
    /// Entries that were taken away and are remembered, so that another node does not bring them back. Default 100 000; further
    /// ones push the oldest out.
    pub tombstones: usize,
    /// How long they are remembered. Default 10 min.
    pub tombstone_time: Duration,
    /// How long a node in self-protection lets nothing expire at all. Default 10 min.
    pub protection: Duration,
    /// Over how long sessions that come all at once are told to spread. Default 5 s, at most a fifth of `lease`.
    pub spread: Duration,
}

impl Default for RegistryLimits {
    fn default() -> RegistryLimits {
        RegistryLimits {
            lease: Duration::from_secs(15),
            push_least: Duration::from_millis(20),
            push_most: Duration::from_millis(500),
            log: 64,
            entry_bytes: 64 << 10,
            labels: 64,
            name_bytes: 512,
            addresses: 16,
            methods: 1024,
            sessions: 100_000,
            connections_per_host: 5_000,
            session_entries: 10_000,
            session_services: 1_000,
            caller_entries: 200_000,
            caller_services: 10_000,
            entries: 1_000_000,
            services: 100_000,
            bytes: 512 << 20,
            subscriptions: 100_000,
            caller_subscriptions: 50_000,
            rules: 64,
            rule_bytes: 64 << 10,
            tombstones: 100_000,
            tombstone_time: Duration::from_secs(600),
            protection: Duration::from_secs(600),
            spread: Duration::from_secs(5),
        }
    }
}
