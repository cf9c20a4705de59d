//! The client beside the cluster: HTTP requests, and who they say answered.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::netns::Netns;

/// For one request: a connection to a neighbour takes well under a millisecond.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a pod of the lab answered (see [`crate::pod`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Which pod.
    pub pod: String,
    /// On which node.
    pub node: String,
    /// The address that the pod saw.
    pub client: IpAddr,
    /// From the first packet to the last byte.
    pub took: Duration,
}

/// Many requests.
#[derive(Debug, Default)]
pub struct Tally {
    /// Those that were answered.
    pub answers: Vec<Answer>,
    /// Why the others were not.
    pub failures: Vec<String>,
}

/// One request from `netns`.
///
/// # Errors
/// No connection, no answer within 2 s, or an answer that is not a lab pod's.
pub fn get(netns: &Netns, at: SocketAddr) -> Result<Answer> {
    netns.run(|| get_here(at))?
}

/// `count` requests one after another, each on a connection of its own.
///
/// # Errors
/// The namespace is gone. Requests that fail are part of the tally.
pub fn requests(netns: &Netns, at: SocketAddr, count: usize) -> Result<Tally> {
    netns.run(|| {
        let mut tally = Tally::default();
        for _ in 0..count {
            match get_here(at) {
                Ok(answer) => tally.answers.push(answer),
                Err(error) => tally.failures.push(format!("{error:#}")),
            }
        }
        tally
    })
}

fn get_here(at: SocketAddr) -> Result<Answer> {
    let began = Instant::now();
    let mut stream = TcpStream::connect_timeout(&at, PATIENCE).with_context(|| format!("connect {at}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET / HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text).with_context(|| format!("read from {at}"))?;
    let took = began.elapsed();
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    parse(body, took).with_context(|| format!("{at} answered {text:?}"))
}

fn parse(body: &str, took: Duration) -> Result<Answer> {
    let words: BTreeMap<&str, &str> = body.split_whitespace().filter_map(|w| w.split_once('=')).collect();
    let (Some(pod), Some(node), Some(client)) = (words.get("pod"), words.get("node"), words.get("client"))
    else {
        bail!("not a pod of the lab");
    };
    Ok(Answer { pod: (*pod).to_owned(), node: (*node).to_owned(), client: client.parse()?, took })
}

impl Tally {
    /// Requests per pod and node.
    #[must_use]
    pub fn by_pod(&self) -> BTreeMap<(String, String), usize> {
        let mut counts = BTreeMap::new();
        for answer in &self.answers {
            *counts.entry((answer.pod.clone(), answer.node.clone())).or_default() += 1;
        }
        counts
    }

    /// The nodes whose pods answered.
    #[must_use]
    pub fn nodes(&self) -> Vec<String> {
        let mut nodes: Vec<String> = self.answers.iter().map(|a| a.node.clone()).collect();
        nodes.sort();
        nodes.dedup();
        nodes
    }

    /// Fails unless every request was answered.
    ///
    /// # Errors
    /// Some were not; the text has the tally and the reasons.
    pub fn all_answered(&self) -> Result<()> {
        if self.failures.is_empty() && !self.answers.is_empty() {
            return Ok(());
        }
        bail!("{self}")
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.answers.len() + self.failures.len();
        let slowest = self.answers.iter().map(|a| a.took).max().unwrap_or_default();
        write!(
            f,
            "{} of {total} requests answered, the slowest in {:.1} ms",
            self.answers.len(),
            ms(slowest)
        )?;
        for ((pod, node), count) in self.by_pod() {
            write!(f, "\n{count:>4} by {pod} on {node}")?;
        }
        for failure in &self.failures {
            write!(f, "\nfailed: {failure}")?;
        }
        Ok(())
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_word_by_word() {
        let got = parse("pod=web-1 node=node2 client=172.25.7.5 port=80\n", Duration::ZERO).unwrap();
        assert_eq!((got.pod.as_str(), got.node.as_str()), ("web-1", "node2"));
        assert_eq!(got.client.to_string(), "172.25.7.5");
        assert!(parse("<html>", Duration::ZERO).is_err());
    }

    #[test]
    fn a_tally_without_an_answer_is_not_all_answered() {
        assert!(Tally::default().all_answered().is_err());
    }
}
