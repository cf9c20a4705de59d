//! What a term shows beside the Services: the verdict about the configuration, gauges, and the pools' own status.

use kube::ResourceExt;
use patina_crds::types::IPAddressPoolStatus;

use super::term::Term;
use crate::config_state::Verdict;
use crate::metrics::saturated;
use crate::pool_status::PoolStatuses;

impl Term<'_> {
    pub(super) fn show_verdict(&mut self) {
        self.keeper.record(&self.around.metrics.config);
        let surroundings = self.surroundings.peek().unwrap_or_default();
        let verdict = Verdict::of(self.keeper, &self.around.config_watch, &surroundings);
        self.around.config_state.send_replace(Some(verdict));
        if self.around.config_watch.synced() {
            self.note_pools();
            self.usage_changed = true;
        }
    }

    pub(super) fn note_pools(&mut self) {
        let resources = self.around.config_watch.resources();
        let pools = resources.pools.iter().filter_map(|pool| Some((pool.name_any(), pool.uid()?))).collect();
        self.usage_changed |= pools != self.pools;
        self.pools = pools;
    }

    /// Gauges and the pools' own status.
    pub(super) fn show_usage(&mut self) {
        if !(self.started && std::mem::take(&mut self.usage_changed)) {
            return;
        }
        let allocator = self.reconciler.allocator();
        self.around.metrics.show_pools(allocator, &mut self.pools_shown);
        self.tally.show_waiting();
        let statuses: PoolStatuses = allocator
            .usage()
            .filter_map(|(name, usage)| {
                let uid = self.pools.get(name)?;
                let status = IPAddressPoolStatus {
                    assigned_ipv4: saturated(usage.used_v4),
                    assigned_ipv6: saturated(usage.used_v6),
                    available_ipv4: saturated(usage.total_v4.saturating_sub(usage.used_v4)),
                    available_ipv6: saturated(usage.total_v6.saturating_sub(usage.used_v6)),
                };
                Some(((name.to_owned(), uid.clone()), status))
            })
            .collect();
        self.around.pool_status.send_if_modified(|shown| {
            let changed = shown.as_ref() != Some(&statuses);
            *shown = Some(statuses);
            changed
        });
    }
}
