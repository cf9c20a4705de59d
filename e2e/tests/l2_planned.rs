//! Planned handovers in a lab with kube-proxy, while a client sends a thousand requests a second: none may be lost.

mod lab_harness;

use std::process::ExitCode;

use anyhow::{Result, ensure};
use lab_harness::wait_for;
use patina_e2e::lab::Options;
use patina_e2e::planned::{Client, Told};

fn main() -> ExitCode {
    lab_harness::run(
        Options::default(),
        |_| Ok(()),
        &[
            ("a_rolling_restart_of_all_speakers_loses_no_request", |lab| {
                wait_for(async {
                    let client = Client::start(lab).await?;
                    loses_nothing(&client, &client.during(client.roll()).await?)
                })
            }),
            ("a_node_that_drains_and_comes_back_loses_no_request", |lab| {
                wait_for(async {
                    let client = Client::start(lab).await?;
                    loses_nothing(&client, &client.during(client.drain()).await?)
                })
            }),
        ],
    )
}

fn loses_nothing(client: &Client<'_>, told: &Told) -> Result<()> {
    let (sent, lost) = (told.counted.sent, told.counted.lost.len());
    ensure!(sent > 1000, "only {sent} requests were sent");
    ensure!(lost == 0, "{lost} of {sent} requests were lost");
    let changes = told.timeline.changes(client.vip()).len();
    ensure!(changes >= 1, "the address never changed hands: nothing was tested");
    Ok(())
}
