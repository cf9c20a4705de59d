//! An independent watch: what a client sees of the Services' statuses, and when.

use std::time::Instant;

use anyhow::{Context, Result, bail};
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use kube::Client;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::core::Request;
use serde::Deserialize;

use crate::cluster::NAMESPACE;

/// As little of a Service as is needed here, so that reading it costs little.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Lean {
    pub(crate) metadata: Metadata,
    #[serde(default)]
    status: Status,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Metadata {
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) resource_version: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    #[serde(default)]
    load_balancer: LoadBalancer,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct LoadBalancer {
    #[serde(default)]
    ingress: Vec<serde::de::IgnoredAny>,
}

impl Lean {
    pub(crate) fn has_address(&self) -> bool {
        !self.status.load_balancer.ingress.is_empty()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct List {
    metadata: ListMetadata,
    items: Vec<Lean>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListMetadata {
    resource_version: String,
    #[serde(rename = "continue", default)]
    next: String,
}

fn path() -> Request {
    Request::new(format!("/api/v1/namespaces/{NAMESPACE}/services"))
}

/// The bench's Services (there is one more in every cluster), and the version of the list.
pub(crate) async fn list(client: &Client) -> Result<(Vec<Lean>, String)> {
    let mut all = Vec::new();
    let mut params = ListParams::default().limit(500);
    loop {
        let page: List = client.request(path().list(&params)?).await.context("list the Services")?;
        all.extend(page.items.into_iter().filter(|service| service.metadata.name.starts_with("bench-")));
        if page.metadata.next.is_empty() {
            return Ok((all, page.metadata.resource_version));
        }
        params = params.continue_token(&page.metadata.next);
    }
}

/// A watch of all Services from one moment on.
pub(crate) struct Watch(BoxStream<'static, kube::Result<WatchEvent<Lean>>>);

impl Watch {
    pub(crate) async fn start(client: &Client, version: &str) -> Result<Watch> {
        let request = path().watch(&WatchParams::default().timeout(290), version)?;
        Ok(Watch(client.request_events::<Lean>(request).await?.boxed()))
    }

    /// The next Service that was created or changed.
    pub(crate) async fn next(&mut self) -> Result<Lean> {
        while let Some(event) = self.0.try_next().await? {
            match event {
                WatchEvent::Added(service) | WatchEvent::Modified(service) => return Ok(service),
                WatchEvent::Error(status) => bail!("the watch failed: {}", status.message),
                WatchEvent::Deleted(_) | WatchEvent::Bookmark(_) => {}
            }
        }
        bail!("the watch ended")
    }

    /// Reads until `count` Services have an address that had none; the moments of the first and of the last.
    pub(crate) async fn addresses(&mut self, count: usize) -> Result<(Instant, Instant)> {
        let mut given = std::collections::HashSet::new();
        let mut first = None;
        loop {
            let service = self.next().await?;
            if service.has_address() && given.insert(service.metadata.name) {
                let now = Instant::now();
                let first = *first.get_or_insert(now);
                if given.len() == count {
                    return Ok((first, now));
                }
            }
        }
    }
}
