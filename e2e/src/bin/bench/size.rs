//! How large the release binaries are.

use anyhow::{Context, Result};

use crate::{Row, cluster};

/// Binary and row.
const BINARIES: [(&str, &str); 3] =
    [("patina-controller", "controller_mb"), ("patina-speaker", "speaker_mb"), ("kubectl-patina", "cli_mb")];

pub(crate) fn measure() -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (binary, metric) in BINARIES {
        let path = cluster::release_binary(binary)?;
        let bytes = std::fs::metadata(&path).with_context(|| format!("{}", path.display()))?.len();
        let note = format!("{binary}, release profile, stripped");
        rows.push(Row::new(metric, bytes as f64 / 1e6, "MB", 1, note));
    }
    Ok(rows)
}
