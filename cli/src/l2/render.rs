//! The listing as text and as JSON.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::{Announcer, Listing, Row};
use crate::table::{Table, age};

/// For people: a table, then what somebody should look at.
#[must_use]
pub fn text(listing: &Listing, now: Timestamp) -> String {
    let mut out = String::new();
    let mut table =
        Table::new(&["ADDRESS", "SERVICE", "ANNOUNCED BY", "INTERFACES", "SINCE", "BECAUSE", "CANDIDATES"]);
    for row in &listing.items {
        let join = |cell: &dyn Fn(&Announcer) -> String| {
            row.announcers.iter().map(cell).collect::<Vec<_>>().join(" + ")
        };
        table.row([
            row.address.clone(),
            format!("{}/{}", row.namespace, row.name),
            join(&|announcer| announcer.node.clone()),
            join(&interfaces),
            join(&|announcer| since(announcer, now)),
            join(&because),
            candidates(row),
        ]);
    }
    if table.is_empty() {
        out.push_str("No address is to be announced by layer 2.\n");
    } else {
        out.push_str(&table.render());
        out.push_str(
            "\nThe candidates are those that the API server knows: nodes with a Ready speaker, taken to have every interface.\n",
        );
    }
    for warning in &listing.warnings {
        out.push_str(&format!("warning: {warning}\n"));
    }
    for unknown in &listing.unknown {
        out.push_str(&format!("not known: {}\n", unknown.replace('\n', "\n    ")));
    }
    out
}

/// For programs.
#[must_use]
pub fn json(listing: &Listing) -> Value {
    json!(listing)
}

fn interfaces(announcer: &Announcer) -> String {
    if announcer.interfaces.is_empty() { "all".to_owned() } else { announcer.interfaces.join(",") }
}

fn since(announcer: &Announcer, now: Timestamp) -> String {
    let since = announcer.since.as_ref().and_then(|text| text.parse::<Timestamp>().ok());
    since.map_or("?".to_owned(), |since| age(since, now))
}

fn because(announcer: &Announcer) -> String {
    let cause = announcer.cause.as_deref().unwrap_or("?");
    match &announcer.from {
        Some(from) => format!("{cause} (from {from})"),
        None => cause.to_owned(),
    }
}

/// In order; `+10` is a preference score.
fn candidates(row: &Row) -> String {
    let mut names: Vec<String> = Vec::new();
    for candidate in &row.candidates {
        let score = if candidate.score > 0 { format!("+{}", candidate.score) } else { String::new() };
        let last = candidate.last_resort.as_ref().map(|why| format!("({why})")).unwrap_or_default();
        names.push(format!("{}{score}{last}", candidate.node));
    }
    let more = row.candidate_count.saturating_sub(row.candidates.len());
    if more > 0 {
        names.push(format!("and {more} more"));
    }
    names.join(",")
}
