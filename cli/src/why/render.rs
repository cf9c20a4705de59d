//! The answer as text and as JSON.

use k8s_openapi::api::core::v1::Event;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::{Explanation, Facts};
use crate::table::{Table, age};

/// More events than this are no help.
const EVENTS: usize = 8;

/// For people: a table, the findings as sentences, the last events.
#[must_use]
pub fn text(explanation: &Explanation, facts: &Facts, now: Timestamp) -> String {
    let mut out = format!("Service {}\n\n", explanation.service);
    if !explanation.addresses.is_empty() {
        let nodes: Vec<_> = explanation.announcers.iter().map(|a| a.node.as_str()).collect();
        let mut table = Table::new(&["ADDRESS", "POOL", "ANNOUNCED BY"]);
        for address in &explanation.addresses {
            table.row([address.ip.clone(), address.pool.clone().unwrap_or_default(), nodes.join(",")]);
        }
        out.push_str(&table.render());
        out.push('\n');
    }
    for finding in &explanation.findings {
        let mark = if finding.ok { "ok  " } else { "NO  " };
        out.push_str(&format!("{mark}{}\n", finding.message.replace('\n', "\n    ")));
        if let Some(remedy) = &finding.remedy {
            out.push_str(&format!("    to do: {remedy}\n"));
        }
    }
    out.push_str(&events(facts, now));
    out
}

/// For programs: the explanation and its events.
#[must_use]
pub fn json(explanation: &Explanation, facts: &Facts) -> Value {
    let events: Vec<_> = last_events(facts)
        .into_iter()
        .map(|event| {
            json!({
                "time": time(event).map(|time| time.to_string()),
                "type": event.type_,
                "reason": event.reason,
                "from": from(event),
                "message": event.message,
            })
        })
        .collect();
    let mut value = json!(explanation);
    if let Some(object) = value.as_object_mut() {
        object.insert("events".to_owned(), events.into());
    }
    value
}

fn events(facts: &Facts, now: Timestamp) -> String {
    let last = last_events(facts);
    if let Err(why) = &facts.events {
        return format!("\nIts events cannot be seen: {why}.\n");
    }
    if last.is_empty() {
        return "\nNo events.\n".to_owned();
    }
    let mut table = Table::new(&["LAST SEEN", "TYPE", "REASON", "FROM", "MESSAGE"]);
    for event in last {
        let age = time(event).map(|time| age(time, now)).unwrap_or_default();
        let cell = |text: &Option<String>| text.clone().unwrap_or_default();
        table.row([age, cell(&event.type_), cell(&event.reason), from(event), cell(&event.message)]);
    }
    format!("\n{}", table.render())
}

/// The newest, oldest of them first.
fn last_events(facts: &Facts) -> Vec<&Event> {
    let mut all: Vec<_> = facts.events.iter().flatten().collect();
    all.sort_by_key(|event| time(event));
    all.split_off(all.len().saturating_sub(EVENTS))
}

fn time(event: &Event) -> Option<Timestamp> {
    let series = event.series.as_ref().and_then(|series| series.last_observed_time.as_ref()).map(|t| t.0);
    series
        .or_else(|| event.last_timestamp.as_ref().map(|t| t.0))
        .or_else(|| event.event_time.as_ref().map(|t| t.0))
        .or_else(|| event.metadata.creation_timestamp.as_ref().map(|t| t.0))
}

fn from(event: &Event) -> String {
    let source = event.source.as_ref().and_then(|source| source.component.clone());
    source.filter(|name| !name.is_empty()).or_else(|| event.reporting_component.clone()).unwrap_or_default()
}
