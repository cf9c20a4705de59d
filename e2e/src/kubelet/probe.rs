//! Probes: an HTTP GET or a TCP connection, really made, from inside the pod's network namespace.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{Container, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::netns::Netns;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Question {
    /// GET; yes is a status of 200 to 399.
    Http {
        /// Where.
        at: SocketAddr,
        /// Path and query.
        path: String,
    },
    /// Yes is a connection.
    Tcp {
        /// Where.
        at: SocketAddr,
    },
}

/// A probe of a container, with Kubernetes' defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    /// What is asked.
    pub question: Question,
    /// Between two questions, once it was answered with yes.
    pub period: Duration,
    /// For one answer.
    pub timeout: Duration,
    /// That many no in a row are a no.
    pub failures: u32,
}

/// The probe of `container`, to be asked at `host` unless it names another.
///
/// # Errors
/// A kind of probe that the lab's kubelet does not know (exec, grpc), or a port name the container does not have.
pub(super) fn asked(probe: &Probe, container: &Container, host: IpAddr) -> Result<Asked> {
    let at = |wanted: Option<&String>, port: &IntOrString| -> Result<SocketAddr> {
        let host = match wanted {
            Some(text) => text.parse().with_context(|| format!("probe host {text}"))?,
            None => host,
        };
        Ok(SocketAddr::new(host, port_of(container, port)?))
    };
    let question = if let Some(get) = &probe.http_get {
        Question::Http {
            at: at(get.host.as_ref(), &get.port)?,
            path: get.path.clone().unwrap_or_else(|| "/".into()),
        }
    } else if let Some(tcp) = &probe.tcp_socket {
        Question::Tcp { at: at(tcp.host.as_ref(), &tcp.port)? }
    } else {
        bail!(
            "container {}: only httpGet and tcpSocket probes are known to the lab's kubelet",
            container.name
        )
    };
    let seconds = |n: Option<i32>, default: u64| {
        Duration::from_secs(n.map_or(default, |n| u64::try_from(n).unwrap_or(1)))
    };
    Ok(Asked {
        question,
        period: seconds(probe.period_seconds, 10),
        timeout: seconds(probe.timeout_seconds, 1),
        failures: probe.failure_threshold.and_then(|n| u32::try_from(n).ok()).unwrap_or(3),
    })
}

/// A number, or the container's port of that name.
///
/// # Errors
/// No such port.
pub(super) fn port_of(container: &Container, port: &IntOrString) -> Result<u16> {
    match port {
        IntOrString::Int(n) => u16::try_from(*n).with_context(|| format!("port {n}")),
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|p| p.name.as_deref() == Some(name));
            let number = named.map(|p| p.container_port);
            let number =
                number.with_context(|| format!("container {} has no port {name}", container.name))?;
            u16::try_from(number).with_context(|| format!("port {number}"))
        }
    }
}

/// Asks once. `Err` is the reason of a no, in a person's words.
pub(super) async fn ask(netns: Netns, asked: &Asked) -> Result<(), String> {
    let (question, timeout) = (asked.question.clone(), asked.timeout);
    let (tell, told) = tokio::sync::oneshot::channel();
    // A thread of its own: it enters the namespace and ends there.
    std::thread::spawn(move || {
        let answer = match netns.enter_this_thread() {
            Ok(()) => ask_here(&question, timeout),
            Err(error) => Err(format!("{error:#}")),
        };
        let _nobody_waits = tell.send(answer);
    });
    told.await.unwrap_or_else(|_| Err("the probe's thread ended".into()))
}

fn ask_here(question: &Question, timeout: Duration) -> Result<(), String> {
    match question {
        Question::Tcp { at } => {
            TcpStream::connect_timeout(at, timeout).map(drop).map_err(|e| format!("{at}: {e}"))
        }
        Question::Http { at, path } => {
            let status = get_status(*at, path, timeout).map_err(|e| format!("GET http://{at}{path}: {e}"))?;
            if (200..400).contains(&status) {
                Ok(())
            } else {
                Err(format!("GET http://{at}{path}: {status}"))
            }
        }
    }
}

fn get_status(at: SocketAddr, path: &str, timeout: Duration) -> std::io::Result<u16> {
    let mut stream = TcpStream::connect_timeout(&at, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {at}\r\nUser-Agent: kube-probe/lab\r\nConnection: close\r\n\r\n"
    )?;
    let mut head = [0u8; 12];
    stream.read_exact(&mut head)?;
    let text = String::from_utf8_lossy(&head);
    let status = text.split(' ').nth(1).and_then(|s| s.parse().ok());
    status.ok_or_else(|| std::io::Error::other(format!("not HTTP: {text:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{ContainerPort, HTTPGetAction};

    fn container() -> Container {
        let port = ContainerPort { name: Some("health".into()), container_port: 17472, ..Default::default() };
        Container { name: "speaker".into(), ports: Some(vec![port]), ..Default::default() }
    }

    #[test]
    fn a_port_is_found_by_its_name_and_a_host_of_the_probe_wins() {
        let get = HTTPGetAction {
            host: Some("127.0.0.1".into()),
            path: Some("/readyz".into()),
            port: IntOrString::String("health".into()),
            ..Default::default()
        };
        let probe = Probe { http_get: Some(get), period_seconds: Some(2), ..Default::default() };
        let got = asked(&probe, &container(), "10.0.0.1".parse().unwrap()).unwrap();
        let at = "127.0.0.1:17472".parse().unwrap();
        assert_eq!(got.question, Question::Http { at, path: "/readyz".into() });
        assert_eq!((got.period, got.failures), (Duration::from_secs(2), 3));
    }

    #[test]
    fn a_port_that_is_not_there_is_an_error_that_names_it() {
        let error = port_of(&container(), &IntOrString::String("metrics".into())).unwrap_err().to_string();
        assert!(error.contains("no port metrics"), "{error}");
    }
}
