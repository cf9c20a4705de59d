//! Against a small API server over real HTTP: lists, watches, cuts and kinds that come and go.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::Ipv4Addr;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::*;

#[derive(Default)]
struct Server {
    objects: BTreeMap<String, Value>,
    version: u64,
    watches: Vec<mpsc::UnboundedSender<Value>>,
    lists: usize,
    /// Every request is answered with this code, or only the next one.
    refuse: Option<u16>,
    only_once: bool,
}

#[derive(Clone, Default)]
struct Fake(Arc<Mutex<Server>>);

impl Fake {
    fn set(&self, name: &str, value: &str) {
        let mut server = self.0.lock().unwrap();
        server.version += 1;
        let object = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {
                "namespace": "ns", "name": name, "resourceVersion": server.version.to_string(),
                "annotations": {LAST_APPLIED: "a copy", "keep": "me"},
                "managedFields": [{"manager": "kubectl", "operation": "Update"}],
            },
            "data": {"value": value, "unread": "large"},
        });
        let kind = if server.objects.insert(name.to_owned(), object.clone()).is_some() {
            "MODIFIED"
        } else {
            "ADDED"
        };
        server.tell(&json!({"type": kind, "object": object}));
    }

    fn delete(&self, name: &str) {
        let mut server = self.0.lock().unwrap();
        server.version += 1;
        let mut object = server.objects.remove(name).unwrap();
        object["metadata"]["resourceVersion"] = server.version.to_string().into();
        server.tell(&json!({"type": "DELETED", "object": object}));
    }

    /// The watch loses its history, and something is deleted unseen.
    fn lose_history_and(&self, name: &str) {
        let mut server = self.0.lock().unwrap();
        server.objects.remove(name);
        server.tell(&json!({"type": "ERROR", "object": {
            "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Expired", "code": 410,
            "message": "too old resource version",
        }}));
    }

    /// Refuses from now on (None: serves again) and ends all watches.
    fn refuse(&self, code: Option<u16>) {
        let mut server = self.0.lock().unwrap();
        server.refuse = code;
        server.watches.clear();
    }

    /// Ends all watches and refuses the next request only.
    fn refuse_once(&self, code: u16) {
        self.refuse(Some(code));
        self.0.lock().unwrap().only_once = true;
    }

    fn lists(&self) -> usize {
        self.0.lock().unwrap().lists
    }

    async fn client(&self) -> Client {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let uri = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let router = Router::new().fallback(answer).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let mut config = kube::Config::new(uri);
        config.default_retry = false;
        Client::try_from(config).unwrap()
    }
}

impl Server {
    fn tell(&mut self, event: &Value) {
        self.watches.retain(|watch| watch.send(event.clone()).is_ok());
    }
}

async fn answer(State(fake): State<Fake>, RawQuery(query): RawQuery) -> Response {
    let query = query.unwrap_or_default();
    let mut server = fake.0.lock().unwrap();
    if let Some(code) = server.refuse {
        if server.only_once {
            server.refuse = None;
        }
        let status =
            json!({"kind": "Status", "status": "Failure", "code": code, "message": "refused", "reason": "x"});
        return (axum::http::StatusCode::from_u16(code).unwrap(), status.to_string()).into_response();
    }
    if !query.contains("watch=true") {
        server.lists += 1;
        let items: Vec<_> = server.objects.values().cloned().collect();
        let version = server.version.to_string();
        let list = json!({
            "apiVersion": "v1", "kind": "ConfigMapList", "metadata": {"resourceVersion": version}, "items": items,
        });
        return list.to_string().into_response();
    }
    let (sender, receiver) = mpsc::unbounded_channel::<Value>();
    server.watches.push(sender);
    let lines = futures::stream::unfold(receiver, |mut receiver| async {
        let line = receiver.recv().await?;
        Some((Ok::<_, Infallible>(Bytes::from(format!("{line}\n"))), receiver))
    });
    Body::from_stream(lines).into_response()
}

struct Case {
    fake: Fake,
    watched: Watched<ConfigMap>,
    bell: Arc<Notify>,
    _tasks: Tasks,
}

impl Case {
    async fn start(fake: Fake) -> Self {
        let (bell, mut tasks) = (Arc::new(Notify::new()), Tasks::new());
        let api = Api::namespaced(fake.client().await, "ns");
        let prune = |object: &mut ConfigMap| {
            object.data.as_mut().map(|data| data.remove("unread"));
        };
        let retry = Duration::from_millis(20);
        let scope = watcher::Config::default();
        let watched = Watched::start_with(api, scope, pruned(prune), Arc::clone(&bell), retry, &mut tasks);
        Self { fake, watched, bell, _tasks: tasks }
    }

    /// What is known, as `name=value name=value`.
    fn seen(&self) -> String {
        let mut all: Vec<_> = self
            .watched
            .state()
            .iter()
            .map(|object| format!("{}={}", object.name_any(), object.data.as_ref().unwrap()["value"]))
            .collect();
        all.sort();
        all.join(" ")
    }

    /// Waits for the bell until `condition` holds.
    async fn until(&self, condition: impl Fn(&Self) -> bool) {
        let wait = async {
            while !condition(self) {
                self.bell.notified().await;
            }
        };
        let deadline = Duration::from_secs(10);
        assert!(
            tokio::time::timeout(deadline, wait).await.is_ok(),
            "seen: {:?}, {:?}",
            self.seen(),
            self.watched
        );
    }

    /// Waits for what rings no bell.
    async fn eventually(&self, condition: impl Fn(&Self) -> bool) {
        for _ in 0..1000 {
            if condition(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("seen: {:?}, {:?}", self.seen(), self.watched);
    }
}

#[tokio::test]
async fn the_first_list_then_each_change() {
    let fake = Fake::default();
    fake.set("a", "1");
    fake.set("b", "1");
    let case = Case::start(fake).await;
    assert!(!case.watched.synced());
    assert_eq!(case.watched.readiness(), Err("the first list is not complete".to_owned()));
    case.until(|case| case.watched.synced()).await;
    assert_eq!(case.seen(), "a=1 b=1");
    assert!(case.watched.readiness().is_ok());

    let before = case.watched.generation();
    case.eventually(|case| !case.fake.0.lock().unwrap().watches.is_empty()).await;
    case.fake.set("a", "2");
    case.until(|case| case.seen() == "a=2 b=1").await;
    assert!(case.watched.generation() > before);
    case.fake.delete("b");
    case.until(|case| case.seen() == "a=2").await;
    assert!(case.watched.get("ns", "a").is_some() && case.watched.get("other", "a").is_none());
    assert_eq!(case.fake.lists(), 1);
}

#[tokio::test]
async fn objects_are_pruned_before_they_are_kept() {
    let fake = Fake::default();
    fake.set("a", "1");
    let case = Case::start(fake).await;
    case.until(|case| case.watched.synced()).await;
    let object = case.watched.get("ns", "a").unwrap();
    assert_eq!(object.metadata.managed_fields.as_deref().unwrap_or_default().len(), 0);
    assert_eq!(object.annotations().keys().collect::<Vec<_>>(), ["keep"]);
    assert_eq!(object.data.as_ref().unwrap().keys().collect::<Vec<_>>(), ["value"]);
}

#[derive(Clone, Debug)]
struct Kept(Arc<(String, String)>);

impl Row for Kept {
    fn key(&self) -> (&str, &str) {
        ("ns", &self.0.0)
    }

    fn same(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

#[tokio::test]
async fn of_an_object_only_the_value_is_kept_and_an_equal_one_is_no_change() {
    let fake = Fake::default();
    fake.set("a", "1");
    fake.set("b", "1");
    let (bell, mut tasks) = (Arc::new(Notify::new()), Tasks::new());
    let keep = |object: ConfigMap| {
        Kept(Arc::new((object.name_any(), object.data.as_ref().unwrap()["value"].clone())))
    };
    let api: Api<ConfigMap> = Api::namespaced(fake.client().await, "ns");
    let watched = Watched::start_as(api, watcher::Config::default(), keep, Arc::clone(&bell), &mut tasks);
    let until = async |text: &str| {
        let seen = || {
            let text = |row: &Kept| format!("{}={}", row.0.0, row.0.1);
            watched.read(|rows| rows.iter().map(text).collect::<Vec<_>>()).join(" ")
        };
        while seen() != text {
            bell.notified().await;
        }
    };
    let deadline = Duration::from_secs(10);
    tokio::time::timeout(deadline, until("a=1 b=1")).await.unwrap();
    let (first, generation) = (watched.get("ns", "a").unwrap(), watched.generation());
    while fake.0.lock().unwrap().watches.is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // A new resourceVersion, the same value; then, after lost history, a list in which one is gone.
    fake.set("a", "1");
    fake.lose_history_and("b");
    tokio::time::timeout(deadline, until("a=1")).await.unwrap();
    assert_eq!(watched.generation(), generation + 1);
    assert!(Arc::ptr_eq(&first.0, &watched.get("ns", "a").unwrap().0), "the value that was there");
}

#[tokio::test]
async fn a_relist_drops_what_vanished_unseen() {
    let fake = Fake::default();
    fake.set("a", "1");
    fake.set("b", "1");
    let case = Case::start(fake).await;
    case.until(|case| case.watched.synced()).await;
    case.eventually(|case| !case.fake.0.lock().unwrap().watches.is_empty()).await;
    case.fake.lose_history_and("a");
    case.until(|case| case.seen() == "b=1").await;
    assert_eq!(case.fake.lists(), 2);
    assert_eq!(case.watched.last_error(), None, "lost history is no failure");
}

#[tokio::test]
async fn an_unknown_kind_is_empty_until_it_appears() {
    let fake = Fake::default();
    fake.refuse(Some(404));
    let case = Case::start(fake).await;
    case.until(|case| case.watched.synced()).await;
    assert!(case.watched.absent());
    assert_eq!((case.seen().as_str(), case.watched.last_error()), ("", None));

    case.fake.set("a", "1");
    case.fake.refuse(None);
    case.until(|case| case.seen() == "a=1").await;
    assert!(!case.watched.absent());

    case.fake.refuse(Some(404));
    case.until(|case| case.watched.absent()).await;
    assert_eq!(case.seen(), "", "the CRD was removed, and with it its objects");
}

#[tokio::test]
async fn one_not_found_forgets_nothing() {
    let fake = Fake::default();
    fake.set("a", "1");
    let case = Case::start(fake).await;
    case.until(|case| case.watched.synced()).await;
    case.eventually(|case| !case.fake.0.lock().unwrap().watches.is_empty()).await;
    let before = case.watched.generation();
    case.fake.refuse_once(404);
    case.eventually(|case| case.fake.lists() == 2 && !case.fake.0.lock().unwrap().watches.is_empty()).await;
    case.fake.set("b", "1");
    case.until(|case| case.watched.generation() > before).await;
    assert_eq!(case.watched.generation(), before + 1, "listed again, not emptied before, and a is the same");
    assert_eq!((case.seen().as_str(), case.watched.absent()), ("a=1 b=1", false));
}

#[tokio::test]
async fn a_failing_server_keeps_what_is_known_and_is_visible() {
    let fake = Fake::default();
    fake.set("a", "1");
    let case = Case::start(fake).await;
    case.until(|case| case.watched.synced()).await;
    case.fake.refuse(Some(503));
    case.eventually(|case| case.watched.last_error().is_some_and(|error| error.contains("refused"))).await;
    assert_eq!(case.seen(), "a=1");
    assert!(case.watched.readiness().is_ok(), "ready stays ready");

    case.fake.refuse(None);
    case.eventually(|case| !case.fake.0.lock().unwrap().watches.is_empty()).await;
    case.fake.set("a", "2");
    case.until(|case| case.seen() == "a=2").await;
    assert_eq!(case.watched.last_error(), None);
}

#[tokio::test]
async fn before_the_first_list_the_error_is_why_it_is_not_ready() {
    let fake = Fake::default();
    fake.refuse(Some(403));
    let case = Case::start(fake).await;
    case.eventually(|case| case.watched.readiness().is_err_and(|error| error.contains("refused"))).await;
    assert!(!case.watched.synced() && !case.watched.absent());
}

#[tokio::test]
async fn what_is_forbidden_says_so_and_is_there_once_it_is_allowed() {
    let fake = Fake::default();
    fake.set("a", "1");
    fake.refuse(Some(403));
    let case = Case::start(fake).await;
    case.until(|case| case.watched.refused()).await;
    assert!(!case.watched.synced());
    case.fake.refuse(Some(503));
    case.eventually(|case| !case.watched.refused()).await;
    case.fake.refuse(None);
    case.until(|case| case.watched.synced()).await;
    assert!(!case.watched.refused());
    assert_eq!(case.seen(), "a=1");
}
