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
        let mut ranges = Vec::new();
        for (i, text) in draft.spec.addresses.iter().enumerate() {
            match parse(text) {
                Ok(range) => ranges.push(range),
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

/// Sorted by first address, an entry overlaps an earlier one exactly when it starts before the furthest end so far.
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
    declared.sort_by_key(|entry| entry.range);
    let mut furthest: Option<&Declared<'_>> = None;
    for entry in &declared {
        if let Some(earlier) = furthest.filter(|earlier| earlier.range.overlaps(&entry.range)) {
            // Two objects may say the same of an address; they may not say different things.
            let twice = std::ptr::eq(earlier.draft, entry.draft);
            if twice || earlier.service != entry.service {
                let other = if twice {
                    format!("{:?} ({}) of the same reservation", earlier.text, earlier.field)
                } else {
                    let object = &earlier.draft.place.object;
                    format!(
                        "{:?} ({object}: {}), which keeps it for somebody else",
                        earlier.text, earlier.field
                    )
                };
                let message = format!("{:?} overlaps with {other}", entry.text);
                problems.error(&entry.draft.place.object, entry.field.clone(), message);
            }
        }
        if furthest.is_none_or(|earlier| {
            earlier.range.family() != entry.range.family()
                || earlier.range.last_number() < entry.range.last_number()
        }) {
            furthest = Some(entry);
        }
    }
}
