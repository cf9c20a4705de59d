//! What a user asks of an API server, from its audit log: the only place that knows who sent a request.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::json;

use patina_e2e::rundir::RunDir;

/// The file, and the flags of the API server that make it write down the requests of these users there (and of nobody
/// else: it costs time).
pub(crate) fn log_of(users: &[&str], run: &RunDir) -> Result<(PathBuf, Vec<String>)> {
    let dir = run.dir("audit")?;
    let (policy, log) = (dir.join("policy.yaml"), dir.join("audit.log"));
    let text = json!({
        "apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived", "ResponseStarted"],
        "rules": [{"level": "Metadata", "users": users}, {"level": "None"}],
    });
    fs::write(&policy, text.to_string()).with_context(|| format!("write {}", policy.display()))?;
    let flags = vec![
        format!("--audit-policy-file={}", policy.display()),
        format!("--audit-log-path={}", log.display()),
    ];
    Ok((log, flags))
}

/// A moment in an audit log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark(u64);

/// Requests by what they were: `patch services/status`.
pub(crate) type Requests = BTreeMap<String, usize>;

/// Now.
pub(crate) fn mark(log: &Path) -> Mark {
    Mark(fs::metadata(log).map_or(0, |file| file.len()))
}

/// What `user` asked since `mark` and was answered.
pub(crate) fn since(log: &Path, mark: Mark, user: &str) -> Result<Requests> {
    let mut file = File::open(log).with_context(|| format!("open {}", log.display()))?;
    file.seek(SeekFrom::Start(mark.0))?;
    let mut requests = Requests::new();
    for line in BufReader::new(file).lines() {
        let event: Event = serde_json::from_str(&line?).context("a line of the audit log")?;
        let Some(object) = event.object_ref.filter(|_| event.user.username == user) else { continue };
        let what = match object.subresource {
            Some(subresource) => format!("{} {}/{subresource}", event.verb, object.resource),
            None => format!("{} {}", event.verb, object.resource),
        };
        *requests.entry(what).or_default() += 1;
    }
    Ok(requests)
}

/// Those that change something, without the Lease: its holder renews it however little there is to do.
pub(crate) fn writes(requests: &Requests) -> Requests {
    let reads = ["get ", "list ", "watch "];
    let is_write =
        |what: &str| !reads.iter().any(|verb| what.starts_with(verb)) && !what.ends_with(" leases");
    requests.iter().filter(|(what, _)| is_write(what)).map(|(what, n)| (what.clone(), *n)).collect()
}

/// `12 patch services/status, 1 create events`.
pub(crate) fn told(requests: &Requests) -> String {
    let parts: Vec<String> = requests.iter().map(|(what, n)| format!("{n} {what}")).collect();
    if parts.is_empty() { "none".to_owned() } else { parts.join(", ") }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    verb: String,
    user: User,
    object_ref: Option<ObjectRef>,
}

#[derive(Deserialize)]
struct User {
    username: String,
}

#[derive(Deserialize)]
struct ObjectRef {
    resource: String,
    subresource: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lease_and_what_only_reads_are_no_writes() {
        let requests =
            ["get leases", "update leases", "list services", "watch services", "patch services/status"];
        let requests: Requests = requests.into_iter().map(|what| (what.to_owned(), 2)).collect();
        assert_eq!(told(&writes(&requests)), "2 patch services/status");
        assert_eq!(told(&Requests::new()), "none");
    }
}
