//! Steps 6 to 10 of api.md 3.3: what a Service keeps of what it holds.

use std::net::IpAddr;
use std::sync::Arc;

use patina_crds::net::Family;

use super::{Case, Given};
use crate::allocator::{Bar, PoolId, Refused};
use crate::reason::{Lost, Notice};
use crate::request::{Request, RequestError};
use crate::surroundings::UsedBy;
use crate::view::FamilyPolicy;

impl Case<'_> {
    /// What of `held` the Service keeps, and what it gets in addition.
    pub(super) fn hold(
        &mut self,
        held: &[IpAddr],
        request: &Result<Request, RequestError>,
    ) -> Result<Given, Lost> {
        let mut addresses: Vec<IpAddr> = Vec::new();
        for ip in held.iter().filter(|ip| self.families.contains(&Family::of(**ip))) {
            if !addresses.iter().any(|other| Family::of(*other) == Family::of(*ip)) {
                addresses.push(*ip);
            }
        }
        if addresses.is_empty() {
            return Err(Lost::FamilyChanged);
        }
        if let Some(lost) = self.conflict(&addresses, request) {
            return Err(lost);
        }
        let keepable = self.allocator.keepable(&addresses);
        if !keepable.is_empty() && keepable.len() < addresses.len() {
            addresses.retain(|ip| !keepable.contains(ip));
            self.notices.push(Notice::PartLost(addresses));
            addresses = keepable;
        }
        let assigned = self.allocator.assign(&self.service.id, &addresses, &self.sharing);
        let name = assigned.map_err(|refused| match refused {
            Refused::OutsideEveryPool(ip) => Lost::OutsideEveryPool(ip),
            Refused::DifferentPools(a, b) => Lost::DifferentPools(a, b),
            Refused::Taken { address, owner, clash } => Lost::Taken { address, owner, clash },
        })?;
        let Some(pool) = self.allocator.id_of(&name) else { return Err(Lost::NotPermitted { pool: name }) };
        let surplus = surplus(&self.service.held);
        if !surplus.is_empty() {
            self.notices.push(Notice::SurplusAddresses(surplus));
        }
        if !self.permitted(pool) {
            return Err(Lost::NotPermitted { pool: name });
        }
        match request {
            // Last good state: a wish that nobody can fulfil takes nothing away.
            Err(error) => {
                self.notices.push(Notice::KeptDespite(error.clone()));
                if self.service.family_policy != FamilyPolicy::RequireDual {
                    return Ok((addresses, pool));
                }
            }
            Ok(request) => {
                if let Some(wanted) = request.pool.as_ref().filter(|wanted| **wanted != name) {
                    return Err(Lost::PoolRequested { pool: wanted.clone() });
                }
                if !request.addresses.is_empty() {
                    let same = request.addresses.len() == addresses.len()
                        && request.addresses.iter().all(|ip| addresses.contains(ip));
                    return if same { Ok((addresses, pool)) } else { Err(Lost::AddressRequested) };
                }
            }
        }
        self.complete(addresses, pool, &name)
    }

    /// A foreign host has one of them, and nobody has used it for the Service yet: another will do, unless the Service asks for
    /// this one, or it is kept for it. An address in use is never moved.
    fn conflict(&self, addresses: &[IpAddr], request: &Result<Request, RequestError>) -> Option<Lost> {
        let id = &self.service.id;
        let request = request.as_ref().ok()?;
        if !request.addresses.is_empty() {
            return None;
        }
        addresses.iter().find_map(|address| match self.allocator.bar(*address, id)? {
            Bar::Network(UsedBy::Host(conflict))
                if conflict.precedes_use(self.service.allocated_since)
                    && !self.allocator.is_kept_for(id, *address) =>
            {
                Some(Lost::Conflict { address: *address, conflict: conflict.clone() })
            }
            _ => None,
        })
    }

    /// Step 10: the address of the second family, from the same pool. It goes last, so that the first entry, by which
    /// the announcer is chosen, stays.
    fn complete(&mut self, addresses: Vec<IpAddr>, pool: PoolId, name: &str) -> Result<Given, Lost> {
        let missing = self.missing(&addresses);
        if missing.is_empty() {
            return Ok((addresses, pool));
        }
        if let Some(more) = self.allocate(pool, &addresses, &missing) {
            return Ok((more, pool));
        }
        if self.any_will_do() {
            self.notices.push(Notice::NoSecondFamily { pool: name.to_owned() });
            self.want_second(&addresses, pool);
            return Ok((addresses, pool));
        }
        Err(Lost::SecondFamilyMissing { pool: name.to_owned() })
    }

    fn missing(&self, addresses: &[IpAddr]) -> Vec<Family> {
        let has = |family: &Family| addresses.iter().any(|ip| Family::of(*ip) == *family);
        self.families.iter().filter(|family| !has(family)).copied().collect()
    }

    /// A Service that has one address and prefers two waits for the other, if its pool could have one.
    pub(super) fn want_second(&mut self, addresses: &[IpAddr], pool: PoolId) {
        let missing = self.missing(addresses);
        if self.any_will_do() && missing.iter().any(|family| self.allocator.has_family(pool, *family)) {
            self.want_automatic(vec![pool], &missing);
        }
    }

    /// What a Service should hear that keeps what it would not be given now.
    pub(super) fn tell_of_reservations(
        &mut self,
        addresses: &[IpAddr],
        request: &Result<Request, RequestError>,
    ) {
        let id = &self.service.id;
        for address in addresses {
            if let Some(bar) = self.allocator.bar(*address, id) {
                self.notices.push(Notice::HoldsBarred { address: *address, bar: bar.clone() });
            }
        }
        // An address that it names itself says more than one that is kept for it; so does a pool.
        let Ok(request) = request else { return };
        let of_pool =
            |pool| request.pool.as_ref().is_none_or(|name| self.allocator.name(pool) == name.as_str());
        let unused = self.allocator.kept_for(id).find(|(pool, family, ..)| {
            let of_family = addresses.iter().filter(|ip| Family::of(**ip) == *family);
            request.addresses.is_empty()
                && of_pool(*pool)
                && of_family.clone().next().is_some()
                && !of_family.into_iter().any(|ip| self.allocator.is_kept_for(id, *ip))
        });
        if let Some((_, _, address, keeper)) = unused {
            let keeper = Arc::clone(keeper);
            self.notices.push(Notice::ReservationUnused { address, keeper });
        }
    }
}

/// Addresses of a status beyond the first of their family.
fn surplus(held: &[IpAddr]) -> Vec<IpAddr> {
    let is_first = |index: usize, ip: &IpAddr| {
        held.iter().position(|other| Family::of(*other) == Family::of(*ip)) == Some(index)
    };
    held.iter().enumerate().filter(|(index, ip)| !is_first(*index, ip)).map(|(_, ip)| *ip).collect()
}
