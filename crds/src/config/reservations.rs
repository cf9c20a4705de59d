//! Addresses kept back (AddressReservation of patina.io): parsed, and without contradictions.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::draft::{Draft, Problems};
use super::{Pool, Reservation};
use crate::net::AddressRange;
use crate::service::ServiceId;
use crate::types;

/// One entry of `addresses`, where it stands.
struct Declared<'a> {
    range: AddressRange,
    text: &'a str,
    draft: &'a Draft<types::AddressReservationSpec>,
    service: Option<&'a ServiceId>,
    field: String,
}

/// Checks every reservation, and all of them for overlaps: an address is kept for one Service, or for nobody.
pub(super) fn build(
    drafts: &[Draft<types::AddressReservationSpec>],
    pools: &BTreeMap<String, Pool>,
    problems: &mut Problems,
) -> Vec<Reservation> {
    let mut reservations: Vec<Reservation> = Vec::new();
    for draft in drafts {
        let place = &draft.place;
        if draft.spec.addresses.is_empty() {
            let message = "no addresses; at least one address, CIDR or range is needed";
            problems.error(&place.object, place.field("addresses"), message);
        }
        let mut ranges: Vec<AddressRange> = Vec::new();
        let mut own: BTreeMap<AddressRange, (&str, String)> = BTreeMap::new();
        for (i, text) in draft.spec.addresses.iter().enumerate() {
            match parse(text) {
                // The ranges of `own` do not overlap, so only the neighbours of a new one can meet it.
                Ok(range) => {
                    let before = own.range(..=range).next_back();
                    let after = own.range(range..).next();
                    let meets = before.into_iter().chain(after).find(|(other, _)| other.overlaps(&range));
                    if let Some((_, (other, field))) = meets {
                        let message =
                            format!("{text:?} overlaps with {other:?} ({field}) of the same reservation");
                        problems.error(&place.object, place.entry("addresses", i), message);
                        continue;
                    }
                    own.insert(range, (text, place.entry("addresses", i)));
                    ranges.push(range);
                }
                Err(message) => problems.error(&place.object, place.entry("addresses", i), message),
            }
        }
        let service = draft.spec.service.as_ref().and_then(|service| {
            let missing = [("name", &service.name), ("namespace", &service.namespace)];
            for (name, _) in missing.iter().filter(|(_, value)| value.is_empty()) {
                let message = "is empty; a Service is named by its namespace and its name";
                problems.error(&place.object, place.nested("service").field(name), message);
            }
            missing
                .iter()
                .all(|(_, value)| !value.is_empty())
                .then(|| ServiceId::new(&service.namespace, &service.name))
        });
        let (source, reason) = (place.object.clone(), draft.spec.reason.clone());
        reservations.push(Reservation { source, ranges, service, reason });
    }
    check_overlaps(drafts, &reservations, problems);
    for reservation in &reservations {
        let meets = |pool: &Pool| {
            reservation.ranges.iter().any(|range| pool.ranges.iter().any(|other| other.overlaps(range)))
        };
        if !reservation.ranges.is_empty() && !pools.values().any(meets) {
            problems
                .notice(&reservation.source, "no pool has any of its addresses: it has no effect".to_owned());
        }
    }
    reservations
}

/// A pool's entry, or a single address.
fn parse(text: &str) -> Result<AddressRange, String> {
    match text.trim().parse::<IpAddr>() {
        Ok(ip) => Ok(AddressRange::single(ip)),
        Err(_) => text.parse::<AddressRange>().map_err(|error| error.to_string()),
    }
}

/// Sorted by first address, an entry overlaps an earlier one exactly when it starts before the furthest end so far. Of the two
/// the one that was declared later is to blame.
fn check_overlaps(
    drafts: &[Draft<types::AddressReservationSpec>],
    reservations: &[Reservation],
    problems: &mut Problems,
) {
    let mut declared: Vec<Declared<'_>> = Vec::new();
    for (draft, reservation) in drafts.iter().zip(reservations) {
        for (i, text) in draft.spec.addresses.iter().enumerate() {
            if let Ok(range) = parse(text) {
                let (service, field) = (reservation.service.as_ref(), draft.place.entry("addresses", i));
                declared.push(Declared { range, text, draft, service, field });
            }
        }
    }
    let mut order: Vec<(usize, &Declared<'_>)> = declared.iter().enumerate().collect();
    order.sort_by_key(|(i, entry)| (entry.range, *i));
    let mut furthest: Option<(usize, &Declared<'_>)> = None;
    let mut found = Vec::new();
    for (i, entry) in order {
        let overlapping = furthest.filter(|(_, earlier)| earlier.range.overlaps(&entry.range));
        // Two objects may say the same of an address; they may not say different things.
        if let Some((other, earlier)) = overlapping.filter(|(_, earlier)| earlier.service != entry.service) {
            let pair = [(other, earlier), (i, entry)];
            found.push(if other < i { pair } else { [pair[1], pair[0]] });
        }
        if overlapping.is_none_or(|(_, earlier)| earlier.range.last_number() < entry.range.last_number()) {
            furthest = Some((i, entry));
        }
    }
    found.sort_by_key(|[(earlier, _), (later, _)]| (*later, *earlier));
    for [(_, earlier), (_, entry)] in found {
        let object = &earlier.draft.place.object;
        let message = format!(
            "{:?} overlaps with {:?} ({object}: {}), which keeps it for somebody else",
            entry.text, earlier.text, earlier.field
        );
        problems.error(&entry.draft.place.object, entry.field.clone(), message);
    }
}
