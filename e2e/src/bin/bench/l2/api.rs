//! Deaths while the API server does not answer: every other round it is dead, in the others it is frozen.

use anyhow::{Context, Result};

use super::stage::{Stage, runs, spread};
use crate::Row;
use crate::report::say;

const SPEAKERS: usize = 10;
const VIPS: usize = 10;
/// Speakers that die one after another while it is away: none of them could come back.
const DEATHS: usize = 6;

pub(crate) async fn measure(rows: &mut Vec<Row>) -> Result<()> {
    let mut stage = Stage::new(SPEAKERS, VIPS).await?;
    let measured = all(&mut stage, rows).await;
    stage.told(measured)
}

async fn all(stage: &mut Stage, rows: &mut Vec<Row>) -> Result<()> {
    let mut samples = Vec::new();
    let rounds = runs(50)?.div_ceil(DEATHS);
    for round in 0..rounds {
        let frozen = round % 2 == 1;
        say(&format!("the API server is {}", if frozen { "frozen" } else { "killed" }));
        let vip = stage.watch(0)?;
        stage.settle(vip).await?;
        if frozen {
            stage.lan.plane.freeze_apiserver()?;
        } else {
            stage.lan.plane.stop_apiserver();
        }
        let died = deaths(stage, round, &mut samples).await;
        if frozen {
            stage.lan.plane.wake_apiserver()?;
        }
        stage.lan.plane.start_apiserver().await?;
        for victim in died? {
            stage.lan.start_speaker(victim)?;
        }
    }
    let what =
        format!("{SPEAKERS} speakers, the API server killed or frozen: kill -9 -> an answer by another");
    rows.extend(spread("api_down_kill", "", &samples, &what)?);
    Ok(())
}

async fn deaths(stage: &mut Stage, round: usize, samples: &mut Vec<f64>) -> Result<Vec<usize>> {
    let mut victims = Vec::new();
    for death in 0..DEATHS {
        let (victim, took) = stage
            .kill(round * DEATHS + death)
            .await
            .with_context(|| format!("round {round}, death {death}"))?;
        victims.push(victim);
        samples.push(took);
    }
    Ok(victims)
}
