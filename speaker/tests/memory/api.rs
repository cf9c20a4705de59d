//! An API server that lists many Services and EndpointSlices, page by page, and whose watches never say anything.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use serde_json::{Value, json};

use crate::counting;

/// Serves until the process ends. Its URL.
pub(crate) fn serve(services: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let services = Arc::new(services);
    thread::spawn(move || {
        counting::this_thread_is_scenery();
        for stream in listener.incoming() {
            let services = Arc::clone(&services);
            let stream = stream.unwrap();
            // Spawning counts a little: the thread is not scenery yet.
            thread::spawn(move || {
                counting::this_thread_is_scenery();
                answer_all(stream, *services)
            });
        }
    });
    url
}

/// Every request of one connection.
fn answer_all(mut stream: TcpStream, services: usize) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    loop {
        let mut request = String::new();
        reader.read_line(&mut request).ok().filter(|read| *read > 0)?;
        let mut header = String::new();
        while reader.read_line(&mut header).ok()? > 2 {
            header.clear();
        }
        let target = request.split(' ').nth(1)?;
        if target.contains("watch=true") {
            // Headers, and then silence: the connection stays open.
            let head =
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
            stream.write_all(head.as_bytes()).ok()?;
            loop {
                thread::park();
            }
        }
        let body = list(target, services).to_string();
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes())).ok()?;
    }
}

fn list(target: &str, services: usize) -> Value {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let parameter = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    let make: fn(usize) -> Value = match path.rsplit('/').next() {
        Some("services") => service,
        Some("endpointslices") => slice,
        // Of one of three speakers.
        Some("servicel2statuses") => {
            return json!({
                "metadata": {"resourceVersion": "1"}, "items": (0..services / 3).map(status).collect::<Vec<_>>(),
            });
        }
        _ => return json!({"metadata": {"resourceVersion": "1"}, "items": []}),
    };
    let from = parameter("continue").map_or(0, |token| token.parse().unwrap());
    let limit = parameter("limit").map_or(services, |limit| limit.parse().unwrap());
    let until = services.min(from + limit);
    let next = if until < services { until.to_string() } else { String::new() };
    let items: Vec<Value> = (from..until).map(make).collect();
    json!({"metadata": {"resourceVersion": "1", "continue": next}, "items": items})
}

/// As large as one that Helm and a controller have written.
fn service(n: usize) -> Value {
    let fields = json!({"f:metadata": {"f:annotations": {".": {}, "f:meta.helm.sh/release-name": {}}, "f:labels": {
        ".": {}, "f:app.kubernetes.io/instance": {}, "f:app.kubernetes.io/name": {}}},
        "f:spec": {"f:ports": {".": {}, "k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}, "f:targetPort": {}}}}});
    let field = |manager: &str| {
        json!({"manager": manager, "operation": "Update", "apiVersion": "v1",
        "time": "2026-01-01T00:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": fields})
    };
    json!({
        "metadata": {
            "namespace": format!("team-{}", n % 50), "name": format!("service-{n:05}"),
            "uid": format!("0f0f0f0f-0000-4000-8000-{n:012}"), "resourceVersion": (1000 + n).to_string(),
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {
                "app.kubernetes.io/name": format!("app-{}", n % 200),
                "app.kubernetes.io/instance": format!("release-{n}"),
                "app.kubernetes.io/managed-by": "Helm",
            },
            "annotations": {"meta.helm.sh/release-name": format!("release-{n}"), "meta.helm.sh/release-namespace": "x"},
            "managedFields": [field("helm"), field("controller")],
        },
        "spec": {
            "type": "LoadBalancer", "clusterIP": format!("10.{}.{}.1", n / 256, n % 256),
            "selector": {"app": "web"}, "externalTrafficPolicy": "Cluster", "sessionAffinity": "None",
            "ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP", "nodePort": 30000}],
        },
        "status": {"loadBalancer": {"ingress": [{"ip": format!("172.25.{}.{}", n / 256, n % 256), "ipMode": "VIP"}]}},
    })
}

/// Two endpoints on two of fifty nodes.
fn slice(n: usize) -> Value {
    let endpoint = |node: usize| {
        json!({"addresses": [format!("10.244.{node}.2")], "nodeName": format!("node-{node}.example.internal"),
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "targetRef": {"kind": "Pod", "namespace": "x", "name": format!("pod-{n}-{node}"), "uid": "u"}})
    };
    json!({
        "metadata": {
            "namespace": format!("team-{}", n % 50), "name": format!("service-{n:05}-x7k2p"),
            "uid": format!("1f0f0f0f-0000-4000-8000-{n:012}"), "resourceVersion": (2000 + n).to_string(),
            "labels": {"kubernetes.io/service-name": format!("service-{n:05}")},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": [endpoint(n % 50), endpoint((n * 7 + 1) % 50)],
    })
}

/// As this speaker writes them.
fn status(n: usize) -> Value {
    let (namespace, name) = (format!("team-{}", n % 50), format!("service-{n:05}"));
    json!({
        "metadata": {
            "namespace": "patina-system", "name": format!("l2-{n:05}"), "uid": format!("2f0f0f0f-0000-4000-8000-{n:012}"),
            "labels": {
                "metallb.io/node": "n01", "metallb.io/service-name": name, "metallb.io/service-namespace": namespace,
            },
            "annotations": {
                "patina.io/since": "2026-01-01T00:00:00.123Z", "patina.io/cause": "speakerDied", "patina.io/from": "n02",
            },
            "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "speaker-x", "uid": "pod"}],
        },
        "spec": {},
        "status": {"node": "n01", "serviceName": name, "serviceNamespace": namespace, "interfaces": [{"name": "eth0"}]},
    })
}
