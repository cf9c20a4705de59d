//! What can be said of a Service without looking at nodes: is it ours to announce, from which pool, by which
//! advertisements.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;

use patina_crds::config::{Config, L2Advertisement, Pool};
use patina_crds::net::{Family, to_number};
use patina_crds::selector::any_matches;

use super::WhyNot;
use crate::view::{Options, ServiceView};

/// A Service that holds addresses of ours.
#[derive(Clone, Debug)]
pub(super) struct Claim<'a> {
    pub(super) service: &'a ServiceView,
    /// Indexes into [`Config::l2_advertisements`] of those that match pool and Service; the same list for many.
    pub(super) advertisements: Rc<[usize]>,
    /// Why no node announces it although the addresses are ours. It still counts as one that holds them.
    pub(super) barred: Option<WhyNot>,
    /// The first of those that share addresses with it, by [`group`](super::groups::group).
    pub(super) group: usize,
}

/// The configuration, indexed for many Services.
#[derive(Debug)]
pub(super) struct Rules<'a> {
    config: &'a Config,
    options: &'a Options,
    /// Every range of every pool by family and first address. Pools never overlap.
    ranges: BTreeMap<(Family, u128), (u128, &'a Pool)>,
    /// Per pool: the advertisements that cover it, with their indexes.
    by_pool: BTreeMap<&'a str, Vec<(usize, &'a L2Advertisement)>>,
    /// What was last said about a Service.
    last: RefCell<Rc<[usize]>>,
}

impl<'a> Rules<'a> {
    pub(super) fn new(config: &'a Config, options: &'a Options) -> Self {
        let ranges = config
            .pools
            .values()
            .flat_map(|pool| pool.ranges.iter().map(move |range| (range, pool)))
            .map(|(range, pool)| ((range.family(), range.first_number()), (range.last_number(), pool)))
            .collect();
        let mut by_pool: BTreeMap<&str, Vec<_>> = BTreeMap::new();
        for (index, advertisement) in config.l2_advertisements.iter().enumerate() {
            for pool in &advertisement.pools {
                by_pool.entry(pool).or_default().push((index, advertisement));
            }
        }
        Self { config, options, ranges, by_pool, last: RefCell::default() }
    }

    /// The pool of its addresses, or why the Service is not ours to announce, by layer 2 or by BGP.
    pub(super) fn pool(&self, service: &ServiceView) -> Result<&'a Pool, WhyNot> {
        if !service.is_load_balancer {
            return Err(WhyNot::NotLoadBalancer);
        }
        // An empty flag is no flag.
        let ours = self.options.lb_class.as_deref().filter(|class| !class.is_empty());
        let found = service.class.as_deref();
        if found != ours {
            return Err(WhyNot::OtherClass { ours: ours.map(Box::from), found: found.map(Box::from) });
        }
        let Some(first) = service.ingress.first() else {
            let text = &service.ingress_text;
            return Err(if text.is_empty() {
                WhyNot::NoIpAllocated
            } else {
                WhyNot::InvalidIp(text.clone())
            });
        };
        // All addresses of a Service come from one pool (api 3.3).
        let pool = self.pool_of(*first).filter(|pool| service.ingress.iter().all(|ip| pool.contains(*ip)));
        pool.ok_or_else(|| WhyNot::IpNotAllowed(service.ingress.clone()))
    }

    /// The claim of a Service, or why it makes none.
    pub(super) fn claim<'s>(&self, service: &'s ServiceView) -> Result<Claim<'s>, WhyNot> {
        let pool = self.pool(service)?;
        let matching: Vec<_> = self
            .by_pool
            .get(pool.name.as_str())
            .into_iter()
            .flatten()
            .filter(|(_, advertisement)| any_matches(&advertisement.service_selectors, &service.labels))
            .collect();
        let selecting =
            matching.iter().find(|(_, advertisement)| !advertisement.service_selectors.is_empty());
        let barred = if matching.is_empty() {
            let bgp = self.config.bgp_advertisements.iter().any(|bgp| bgp.pools.contains(&pool.name));
            Some(WhyNot::NoMatchingAdvertisement { pool: pool.name.clone(), bgp })
        } else if let (Some(_), Some((_, advertisement))) = (&service.shared_key, selecting) {
            // The mere presence of the annotation counts, and one advertisement with selectors is enough (api 1.2).
            Some(WhyNot::SharedIpWithServiceSelector(Box::new(advertisement.source.clone())))
        } else if !service.endpoints.iter().any(|endpoint| endpoint.usable) {
            Some(WhyNot::NoEndpoints)
        } else {
            None
        };
        let matching = matching.iter().map(|(index, _)| *index);
        let mut last = self.last.borrow_mut();
        if !matching.clone().eq(last.iter().copied()) {
            *last = matching.collect();
        }
        Ok(Claim { service, advertisements: Rc::clone(&last), barred, group: 0 })
    }

    fn pool_of(&self, ip: IpAddr) -> Option<&'a Pool> {
        let number = to_number(ip);
        let (_, (last, pool)) =
            self.ranges.range((Family::of(ip), 0)..=(Family::of(ip), number)).next_back()?;
        (number <= *last).then_some(*pool)
    }
}
