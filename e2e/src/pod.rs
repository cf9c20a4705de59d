//! The lab's stand-in for every image that is not ours: a small HTTP server that says which pod answered, on which
//! node, and what address the client seemed to have. It runs as `lab pod` inside the pod's namespaces.
//!
//! The answer is one line of words, so that a test and a person read the same thing:
//!
//! ```text
//! pod=sample-app-7d9c5-x2x4z node=node2 client=172.25.7.5 port=80
//! ```

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// How long a client may take to send its request line.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a pod says about itself.
#[derive(Debug, Clone)]
pub struct Identity {
    /// `metadata.name` of the pod.
    pub pod: String,
    /// `spec.nodeName` of the pod.
    pub node: String,
}

/// Answers on all `ports`, IPv4 and IPv6, until the process is ended.
///
/// # Errors
/// A port that cannot be bound; nothing is left listening.
pub async fn serve(identity: Identity, ports: &[u16]) -> Result<()> {
    let mut listeners = Vec::new();
    for &port in ports {
        let address = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port);
        let listener = TcpListener::bind(address).await.with_context(|| format!("bind port {port}"))?;
        println!("listening on {address}");
        listeners.push(listener);
    }
    let tasks = listeners.into_iter().map(|l| tokio::spawn(accept(l, identity.clone())));
    futures::future::join_all(tasks).await;
    Ok(())
}

async fn accept(listener: TcpListener, identity: Identity) {
    loop {
        match listener.accept().await {
            Ok((stream, client)) => {
                let identity = identity.clone();
                tokio::spawn(async move {
                    // A client that went away is its own business.
                    let _gone = tokio::time::timeout(PATIENCE, answer(stream, client, &identity)).await;
                });
            }
            Err(error) => eprintln!("accept: {error}"),
        }
    }
}

async fn answer(mut stream: TcpStream, client: SocketAddr, identity: &Identity) -> std::io::Result<()> {
    let mut request: Vec<u8> = Vec::new();
    let mut buffer = [0u8; 1024];
    while !request.windows(4).any(|w| w == b"\r\n\r\n") && request.len() < 16 * 1024 {
        let n = stream.read(&mut buffer).await?;
        if n == 0 {
            break;
        }
        request.extend(buffer.iter().take(n));
    }
    let port = stream.local_addr()?.port();
    let body =
        format!("pod={} node={} client={} port={port}\n", identity.pod, identity.node, plain(client.ip()));
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}

/// An IPv4 client of a dual-stack socket is `::ffff:a.b.c.d`; people write `a.b.c.d`.
fn plain(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(ip, IpAddr::V4),
        IpAddr::V4(_) => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_client_is_written_as_ipv4() {
        assert_eq!(plain("::ffff:172.25.7.5".parse().unwrap()).to_string(), "172.25.7.5");
        assert_eq!(plain("fd00:25:7::5".parse().unwrap()).to_string(), "fd00:25:7::5");
    }
}
