//! The death of an announcer: SIGKILL, and nobody is told.

use anyhow::Result;

use super::stage::{Stage, runs, spread};
use crate::Row;

/// Speakers on the LAN, one size after another.
const SIZES: [usize; 3] = [3, 10, 50];
/// Addresses that take turns, so that the nodes do.
const VIPS: usize = 10;

pub(crate) async fn measure(rows: &mut Vec<Row>) -> Result<()> {
    let mut stage = Stage::new(SIZES[0], VIPS).await?;
    for size in SIZES {
        let measured = async {
            stage.grow(size).await?;
            stage.kills(runs(50)?).await
        };
        let samples = measured.await;
        let samples = stage.told(samples)?;
        let what = format!("{size} speakers: kill -9 of the one that answers -> the first answer by another");
        rows.extend(spread("kill", &format!("_{size}"), &samples, &what)?);
    }
    Ok(())
}
