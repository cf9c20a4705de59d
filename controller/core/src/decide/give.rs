//! Step 11 of api.md 3.3: what a Service gets that has nothing.

use std::sync::Arc;

use patina_crds::net::Family;

use super::{Case, Given};
use crate::allocator::{KeptTrouble, PoolId, Refused};
use crate::reason::{Notice, PoolNames, Reason};
use crate::request::{self, Request, RequestError, describe_families};
use crate::waiting::Want;

impl Case<'_> {
    /// Explicit addresses, else the requested pool, else what is reserved for it, else pinned pools, else open ones.
    pub(super) fn give(&mut self, request: &Request) -> Result<Given, Reason> {
        if !request.addresses.is_empty() {
            return self.give_exactly(request);
        }
        if let Some(pool) = request.pool.as_ref().and_then(|name| self.allocator.id_of(name)) {
            return self.give_from(&[pool]);
        }
        let reserved = self.reserved_pools();
        if !reserved.is_empty() {
            return self.give_reserved(&reserved);
        }
        let (pinned, open, _) = self.allocator.pool_order();
        let first: Vec<PoolId> = pinned.iter().filter(|pool| self.permitted(**pool)).copied().collect();
        let all = [&first, open].concat();
        // A pool that has only a priority is tried with the pinned ones, but is meant for nobody in particular.
        let is_pinned = |pool: &&PoolId| self.allocator.allocation(**pool).is_some_and(|a| a.is_pinned());
        let pinned: Vec<PoolId> = first.iter().filter(is_pinned).copied().collect();
        if self.rules.policy.strict_pinning && !pinned.is_empty() {
            return self.give_from(&first);
        }
        let (addresses, pool) = self.give_from_either(&first, &all)?;
        if !first.contains(&pool) {
            let wanted = |pool: &&PoolId| self.families.iter().any(|f| self.allocator.has_family(**pool, *f));
            let full: Vec<PoolId> = pinned.iter().filter(wanted).copied().collect();
            if !full.is_empty() {
                let (pinned, pool) = (self.names(&full), self.allocator.name(pool).to_owned());
                self.notices.push(Notice::PinnedPoolsFull { pinned, pool });
            }
        }
        Ok((addresses, pool))
    }

    /// Anything from `first` comes before everything from the rest of `all`.
    fn give_from_either(&mut self, first: &[PoolId], all: &[PoolId]) -> Result<Given, Reason> {
        if !first.is_empty()
            && let Some(given) = self.first_of(first)
        {
            self.want_second(&given.0, given.1);
            return Ok(given);
        }
        self.give_from(all)
    }

    fn give_exactly(&mut self, request: &Request) -> Result<Given, Reason> {
        match self.allocator.assign(&self.service.id, &request.addresses, &self.sharing) {
            Ok(name) => {
                let pool = self.allocator.id_of(&name).ok_or(Reason::NoPools)?;
                Ok((request.addresses.clone(), pool))
            }
            Err(Refused::Taken { address, owner, clash }) => {
                self.want = Some(Want::Addresses(request.addresses.clone()));
                Err(Reason::AddressTaken { address, owner, clash })
            }
            // The request was checked against the same configuration: these cannot be, but have their sentence.
            Err(Refused::OutsideEveryPool(address)) => {
                let pools = request::describe_pools(self.rules.config);
                Err(Reason::Request(RequestError::OutsideEveryPool { address, pools }))
            }
            Err(Refused::DifferentPools(a, b)) => Err(Reason::Request(RequestError::DifferentPools(a, b))),
        }
    }

    /// From the first of `pools` that has what the family policy wants most, else the next best.
    fn give_from(&mut self, pools: &[PoolId]) -> Result<Given, Reason> {
        if let Some(given) = self.first_of(pools) {
            self.want_second(&given.0, given.1);
            return Ok(given);
        }
        Err(self.none_in(pools))
    }

    /// Pools where something of its families is reserved for it, in the order of automatic allocation, and then those
    /// that never give by themselves: a reservation is a request.
    fn reserved_pools(&self) -> Vec<PoolId> {
        let mine = |family: &Family| self.families.contains(family);
        let kept = self.allocator.kept_for(&self.service.id).filter(|(_, family, ..)| mine(family));
        let kept: Vec<PoolId> = kept.map(|(pool, ..)| pool).collect();
        if kept.is_empty() {
            return kept;
        }
        let (pinned, open, manual) = self.allocator.pool_order();
        [pinned, open, manual].concat().into_iter().filter(|pool| kept.contains(pool)).collect()
    }

    /// At least one address that is reserved for it; of a family in which nothing is, any of the same pool.
    fn give_reserved(&mut self, reserved: &[PoolId]) -> Result<Given, Reason> {
        let pools: Vec<PoolId> = reserved.iter().filter(|pool| self.permitted(**pool)).copied().collect();
        let Some(first) = reserved.first().filter(|_| pools.is_empty()) else {
            return self.give_from(&pools);
        };
        let pool = self.allocator.name(*first).to_owned();
        Err(Reason::Request(RequestError::NotPermitted { pool }))
    }

    /// All its families from one pool, the first that has them; a Service that prefers two takes one of its primary family
    /// then, and then one of the other.
    fn first_of(&mut self, pools: &[PoolId]) -> Option<Given> {
        let mut choices: Vec<Vec<Family>> = vec![self.families.clone()];
        if self.any_will_do() && self.families.len() > 1 {
            let primary = self.service.families.first().copied().unwrap_or(Family::V4);
            let secondary = self.families.iter().copied().find(|family| *family != primary);
            choices.extend([Some(primary), secondary].into_iter().flatten().map(|family| vec![family]));
        }
        for choice in choices {
            for pool in pools {
                if !self.misses_reserved(*pool, &choice)
                    && let Some(addresses) = self.allocate(*pool, &[], &choice)
                {
                    return Some((addresses, *pool));
                }
            }
        }
        None
    }

    /// Something of the pool is reserved for the Service, but nothing of these families.
    fn misses_reserved(&self, pool: PoolId, families: &[Family]) -> bool {
        let mut kept = self.allocator.kept_for(&self.service.id).filter(|(other, ..)| *other == pool);
        let mine = |family: &Family| self.families.contains(family);
        let mut any = false;
        let hit = kept.any(|(_, family, ..)| {
            any |= mine(&family);
            families.contains(&family)
        });
        any && !hit
    }

    /// Why none of `pools` could give, and what would help.
    fn none_in(&mut self, pools: &[PoolId]) -> Reason {
        if pools.is_empty() {
            let pools = PoolNames::new(self.rules.config.pools.keys().map(String::as_str));
            return Reason::NoUsablePool { pools };
        }
        let families = describe_families(&self.families);
        let has = |pool: &PoolId, family: &Family| self.allocator.has_family(*pool, *family);
        let fits = |pool: &&PoolId| {
            if self.any_will_do() {
                self.families.iter().any(|family| has(pool, family))
            } else {
                self.families.iter().all(|family| has(pool, family))
            }
        };
        let fitting: Vec<PoolId> = pools.iter().filter(fits).copied().collect();
        if fitting.is_empty() {
            return Reason::NoPoolOfFamily { families, pools: self.names(pools) };
        }
        let reason = self.reserved_trouble(&fitting).unwrap_or_else(|| {
            let each = || fitting.iter().flat_map(|pool| self.families.iter().map(|family| (*pool, *family)));
            let kept_back = each().map(|(pool, family)| self.allocator.kept_back(pool, family));
            // Only where it is what is in the way.
            let set_aside = |pool: &PoolId| {
                let older = self.rules.queue.set_aside(*pool, &self.turn)?;
                let left = |family: &Family| self.allocator.available(*pool, *family) > 0;
                self.families.iter().all(left).then(|| older.clone())
            };
            Reason::Exhausted {
                families,
                pools: self.names(&fitting),
                kept_back: kept_back.fold(0, u128::saturating_add),
                set_aside_for: fitting.iter().find_map(set_aside),
            }
        });
        self.want_automatic(fitting, &self.families.clone());
        reason
    }

    /// Why it cannot have what is reserved for it, if something in `pools` is.
    fn reserved_trouble(&self, pools: &[PoolId]) -> Option<Reason> {
        let id = &self.service.id;
        let ours = self
            .allocator
            .kept_for(id)
            .filter(|(pool, family, ..)| pools.contains(pool) && self.families.contains(family));
        ours.filter_map(|(pool, family, _, keeper)| {
            let keeper = Arc::clone(keeper);
            let (address, trouble) = self.allocator.kept_trouble(id, pool, family)?;
            Some(match trouble {
                KeptTrouble::Held(owner) => Reason::ReservedHeld { address, keeper, owner },
                KeptTrouble::Network(by) => Reason::ReservedInUse { address, keeper, by },
                KeptTrouble::Buggy => {
                    let pool = self.allocator.name(pool).to_owned();
                    Reason::Request(RequestError::Buggy { address, pool })
                }
            })
        })
        .next()
    }

    fn names(&self, pools: &[PoolId]) -> PoolNames {
        PoolNames::new(pools.iter().map(|pool| self.allocator.name(*pool)))
    }
}
