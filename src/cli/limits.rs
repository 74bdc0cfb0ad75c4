//! The limit of open files, and what it allows; and the pages that memory is taken in.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::admin;
use crate::config::Settings;

/// Descriptors for files, the cluster's API, the log and the runtime.
const OWN: u64 = 64;
/// The fewest connections that clients get, however low the limit is.
const FEWEST: u64 = 8;

/// Raises the limit of open files as far as this process may.
pub(super) fn raise() {
    let limit = getrlimit(Resource::Nofile);
    let (Some(soft), hard) = (limit.current, limit.maximum) else { return };
    if hard.is_some_and(|hard| soft >= hard) {
        tracing::info!(files = soft, "limit of open files");
        return;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard }) {
        Ok(()) => tracing::info!(files = hard, before = soft, "limit of open files, raised"),
        Err(error) => {
            tracing::warn!(%error, files = soft, "the limit of open files cannot be raised");
        }
    }
}

/// Memory is taken in small pages from here on. All of a huge page (2 MiB) counts, however little of it is used, and the
/// allocator has many: 64 MiB did not do for 50 clients with large bodies, who need 40.
pub(super) fn small_pages() {
    // Only more memory is used where this fails.
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

/// How many connections are taken at once, so that there are descriptors for pods too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Budget {
    /// By all listeners together: each needs a descriptor, and may need another one for a pod.
    pub(super) clients: usize,
    /// By the admin API.
    pub(super) admin: usize,
}

impl Budget {
    /// What this process's limit of open files allows. Says so where the listeners would take more.
    pub(super) fn now(settings: &Settings) -> Self {
        let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let budget = Self::of(files);
        let wanted = settings.listeners.iter().map(|listener| listener.edge.connections);
        let wanted = wanted.fold(0, usize::saturating_add);
        if wanted > budget.clients {
            tracing::warn!(
                files,
                wanted,
                taken = budget.clients,
                "the limit of open files allows fewer connections than the listeners: no more than that are taken at once, \
                 and further ones wait; raise it (`ulimit -Hn`, LimitNOFILE=)"
            );
        }
        budget
    }

    fn of(files: u64) -> Self {
        let admin = (files / 16).clamp(FEWEST, admin::CONNECTIONS as u64);
        let clients = (files.saturating_sub(OWN + admin) / 2).max(FEWEST);
        let number = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        Self { clients: number(clients), admin: number(admin) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_leaves_descriptors_for_pods_and_probes() {
        for files in [256, 1024, 20_000, 1 << 20, u64::MAX] {
            let Budget { clients, admin } = Budget::of(files);
            let used = (clients as u64).saturating_mul(2).saturating_add(admin as u64 + OWN);
            assert!(used <= files, "{files}: {clients} and {admin}");
            assert!(admin >= 16 && clients as u64 >= files / 4 - 64, "{files}: {clients} and {admin}");
        }
        assert_eq!(Budget::of(10), Budget { clients: 8, admin: 8 });
    }
}
