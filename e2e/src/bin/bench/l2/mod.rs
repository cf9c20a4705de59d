//! Layer 2: how fast an address changes hands, measured from a client's namespace, and what a speaker needs.

mod memory;

use anyhow::Result;

use crate::Row;

pub(crate) async fn measure() -> Result<Vec<Row>> {
    memory::measure().await
}
