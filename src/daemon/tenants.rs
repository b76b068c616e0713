//! Suppression lists, quotas and what came already: made at the start, told of reloads, told to the metrics.

use std::{path::PathBuf, sync::Arc, time::Duration};

use admin::KnowsTenant;
use anyhow::Context as _;
use arc_swap::ArcSwap;
use bridge::{ListDesk, Tenancy};
use config::{Config, LocalPartCase, QuotaExcess};
use mail::{TenantId, Timestamp};
use pool::{Keeper, Suppression};
use shard::Snapshot;
use tenancy::{CaseOfLocalParts, Excess, QuotaLimits, Reason};
use watch::Registry;

/// What is known of tenants, before anybody keeps it.
pub(crate) struct Tenants {
    tenancy: Tenancy,
    desk: ListDesk,
    data_directory: PathBuf,
}

/// What a reload changes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TenancyLimits {
    entries_max: u64,
    duplicates_max: u64,
    window_max: Duration,
}

/// Changes of lists that wait to be written, at once.
const ERRANDS_MAX: usize = 16_384;

impl TenancyLimits {
    pub(crate) fn new(config: &Config) -> Self {
        let windows = config.tenants.iter().map(|tenant| tenant.duplicate_window);
        Self {
            entries_max: config.suppression.entries_max,
            duplicates_max: config.duplicates.entries_max,
            window_max: windows.max().unwrap_or_default(),
        }
    }

    pub(crate) fn apply(self, tenancy: &Tenancy) {
        tenancy.configure(self.entries_max, self.duplicates_max, self.window_max);
    }
}

impl Tenants {
    pub(crate) fn new(config: &Config) -> Self {
        let case = match config.suppression.local_part_case {
            LocalPartCase::Ignored => CaseOfLocalParts::Ignored,
            LocalPartCase::Kept => CaseOfLocalParts::Kept,
        };
        let (tenancy, desk) = Tenancy::new(case, ERRANDS_MAX);
        TenancyLimits::new(config).apply(&tenancy);
        Self { tenancy, desk, data_directory: config.data_directory.clone() }
    }

    pub(crate) fn known(&self) -> Tenancy {
        self.tenancy.clone()
    }

    /// What operators ask by: the lists, and whether there is a tenant of a name.
    pub(crate) fn facts(&self, snapshot: &Arc<ArcSwap<Snapshot>>) -> (Tenancy, KnowsTenant) {
        let snapshot = snapshot.clone();
        let knows = move |name: &str| {
            snapshot.load().config.tenants.iter().any(|tenant| tenant.name.eq_ignore_ascii_case(name))
        };
        (self.tenancy.clone(), Arc::new(knows))
    }

    /// What tells the metrics how it is now.
    pub(crate) fn teller(
        &self,
        registry: &Arc<Registry>,
        snapshot: &Arc<ArcSwap<Snapshot>>,
        clock: fn() -> Timestamp,
    ) -> impl Fn() + Send + Sync + use<> {
        let (tenancy, registry, snapshot) = (self.tenancy.clone(), registry.clone(), snapshot.clone());
        let metrics = registry.tenancy(&Reason::ALL.map(Reason::as_str));
        move || {
            metrics.set_suppressions(tenancy.entries());
            let (added, lost) = tenancy.added();
            added.iter().for_each(|(reason, count)| metrics.set_added(reason.as_str(), *count));
            metrics.set_lost(lost);
            metrics.set_remembered(tenancy.remembered());
            for tenant in &snapshot.load().config.tenants {
                let limits = quota_limits(tenant);
                if limits.max.iter().all(Option::is_none) {
                    continue;
                }
                for used in tenancy.quotas().used(TenantId::of(&tenant.name), &limits, clock()) {
                    registry.set_tenant(&tenant.name, used.period.as_str(), used.used, used.max);
                }
            }
        }
    }

    /// Reads what is in the data directory, and keeps it from here on.
    pub(crate) fn keep(self, clock: fn() -> Timestamp) -> anyhow::Result<(Tenancy, Keeper)> {
        let Self { tenancy, desk, data_directory } = self;
        let suppression = Suppression::open(&data_directory, desk, clock)
            .with_context(|| format!("{}: the suppression list", data_directory.display()))?;
        Ok((tenancy, suppression.keep()?))
    }
}

fn quota_limits(tenant: &config::Tenant) -> QuotaLimits {
    QuotaLimits {
        max: [tenant.hourly_max, tenant.daily_max, tenant.monthly_max],
        warn_percent: tenant.quota_warning,
        excess: match tenant.quota_excess {
            QuotaExcess::Refuse => Excess::Refused,
            QuotaExcess::Report => Excess::Told,
        },
    }
}
