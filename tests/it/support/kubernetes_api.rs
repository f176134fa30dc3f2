//! A stand-in for the API server of Kubernetes: `EndpointSlices` by list and watch. No real one can be installed for the
//! tests. It behaves as the documentation on kubernetes.io says; each assumption, with its place there:
//!
//! 1. A list is `{metadata: {resourceVersion, continue}, items}`; with `limit` it comes in pages, which have the version
//!    and the content of the moment of the first one ("API Concepts", "Retrieving large results sets in chunks").
//! 2. A token of a page that is too old is answered with 410 and a `Status` (same place).
//! 3. A watch is a 200 with chunked JSON, one event a line: `{type: ADDED | MODIFIED | DELETED, object}`; it has the
//!    changes after `resourceVersion` ("Efficient detection of changes").
//! 4. A version that is too old is a 410 before the stream, or an event `ERROR` with a `Status` of code 410 in it
//!    ("410 Gone responses", "Watch bookmarks").
//! 5. With `allowWatchBookmarks`, an event `BOOKMARK` may come at any time; its object has only a version ("Watch
//!    bookmarks").
//! 6. The server ends a watch after `timeoutSeconds` ("`EndpointSlice` v1", query parameters).
//! 7. `labelSelector=kubernetes.io/service-name=NAME` selects the slices of a service ("`EndpointSlices`", "Ownership").
//! 8. A missing or wrong token is a 401, a missing permission a 403, each with a `Status` whose `message` says what is
//!    missing ("Authenticating", "Authorization").
//! 9. Empty lists of an object may be `null` (as Go writes them).
//! 10. Running watches are not ended when their token expires.

use std::collections::BTreeMap;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use socket2::SockRef;

use super::client::Connection;
use super::port::{self, ClosedPort};
use super::wait;

/// The namespace and the service of all slices.
pub(crate) const NAMESPACE: &str = "prod";
pub(crate) const SERVICE: &str = "app";

/// A running API server, stopped when dropped.
pub(crate) struct KubernetesApi {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    listener: Option<(TcpListener, JoinHandle<()>)>,
    /// The port while the server is down.
    held: Option<ClosedPort>,
}

struct Shared {
    tls: Option<Arc<ServerConfig>>,
    cluster: Mutex<Cluster>,
    changed: Condvar,
    open: Mutex<Vec<TcpStream>>,
}

#[derive(Default)]
struct Cluster {
    version: u64,
    /// A watch can start from this version on.
    oldest: u64,
    slices: BTreeMap<String, Value>,
    /// Each change with its version, as a line of a watch.
    events: Vec<(u64, String)>,
    /// The lists that are read in pages, by their version.
    paged: BTreeMap<u64, Vec<Value>>,
    /// `None`: no token is needed.
    token: Option<String>,
    is_forbidden: bool,
    tells_gone_by_status: bool,
    /// Counts the ends of all watches.
    ends: u64,
    /// The targets of the requests.
    requests: Vec<String>,
}

impl KubernetesApi {
    pub(crate) fn start() -> Self {
        Self::with(None)
    }

    pub(crate) fn secure(tls: Arc<ServerConfig>) -> Self {
        Self::with(Some(tls))
    }

    fn with(tls: Option<Arc<ServerConfig>>) -> Self {
        let cluster = Cluster {
            version: 1,
            ..Cluster::default()
        };
        let mut api = Self {
            address: port::free(),
            shared: Arc::new(Shared {
                tls,
                cluster: Mutex::new(cluster),
                changed: Condvar::new(),
                open: Mutex::default(),
            }),
            listener: None,
            held: None,
        };
        api.up();
        api
    }

    /// Adds a slice, or replaces it.
    pub(crate) fn set(&self, name: &str, slice: Value) {
        self.cluster().set(name, slice);
        self.shared.changed.notify_all();
    }

    /// As [`Self::set`], while no watch runs; the change is then forgotten: neither a watch nor a page can start from an
    /// earlier version.
    pub(crate) fn set_unseen(&self, name: &str, slice: Value) {
        let mut cluster = self.cluster();
        cluster.ends += 1;
        cluster.set(name, slice);
        cluster.oldest = cluster.next_version();
        cluster.events.clear();
        cluster.paged.clear();
        self.shared.changed.notify_all();
    }

    pub(crate) fn remove(&self, name: &str) {
        let mut cluster = self.cluster();
        let mut slice = cluster.slices.remove(name).expect("a known slice");
        let version = cluster.next_version();
        slice["metadata"] = metadata(name, version);
        cluster.tell("DELETED", &slice);
        self.shared.changed.notify_all();
    }

    /// Sends a bookmark to all watches.
    pub(crate) fn bookmark(&self) {
        let mut cluster = self.cluster();
        let version = cluster.next_version();
        let object = json!({"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1", "addressType": "",
                            "metadata": {"resourceVersion": version.to_string(), "creationTimestamp": null},
                            "endpoints": null, "ports": null});
        cluster.tell("BOOKMARK", &object);
        self.shared.changed.notify_all();
    }

    /// Whether a version that is too old is a 410 before the stream, or an event in it.
    pub(crate) fn tell_gone_by_status(&self, by_status: bool) {
        self.cluster().tells_gone_by_status = by_status;
    }

    /// Accepts only this token from now on.
    pub(crate) fn accept_token(&self, token: &str) {
        self.cluster().token = Some(token.to_owned());
    }

    /// Whether the account lacks the permission.
    pub(crate) fn forbid(&self, is_forbidden: bool) {
        self.cluster().is_forbidden = is_forbidden;
    }

    /// Ends all watches in an orderly way, after the changes so far.
    pub(crate) fn end_watches(&self) {
        self.cluster().ends += 1;
        self.shared.changed.notify_all();
    }

    /// The targets of the requests so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.cluster().requests.clone()
    }

    /// The watches so far.
    pub(crate) fn watches(&self) -> usize {
        let requests = self.requests();
        requests
            .iter()
            .filter(|target| target.contains("watch=1"))
            .count()
    }

    /// Waits for this many watches since the start.
    pub(crate) fn wait_for_watches(&self, count: usize) {
        wait::until(&format!("{count} watches"), || self.watches() >= count);
    }

    /// Closes all connections, and refuses new ones.
    pub(crate) fn down(&mut self) {
        self.close();
        self.held = Some(ClosedPort::hold(self.address));
    }

    /// Listens again on the same port.
    pub(crate) fn up(&mut self) {
        self.held = None;
        let socket = port::reusable(self.address);
        socket.listen(64).expect("listen");
        let listener = TcpListener::from(socket);
        let accepting = listener.try_clone().expect("another handle");
        let shared = Arc::clone(&self.shared);
        let thread = thread::spawn(move || shared.accept(&accepting));
        self.listener = Some((listener, thread));
    }

    fn close(&mut self) {
        if let Some((listener, thread)) = self.listener.take() {
            // Wakes the thread in accept(), which exits on the error.
            let _ = SockRef::from(&listener).shutdown(Shutdown::Both);
            let _ = thread.join();
        }
        for socket in self.shared.open.lock().expect("not poisoned").split_off(0) {
            let _ = socket.shutdown(Shutdown::Both);
        }
        self.end_watches();
    }

    fn cluster(&self) -> MutexGuard<'_, Cluster> {
        self.shared.cluster.lock().expect("not poisoned")
    }
}

impl Drop for KubernetesApi {
    fn drop(&mut self) {
        self.close();
    }
}

fn metadata(name: &str, version: u64) -> Value {
    json!({"name": name, "namespace": NAMESPACE, "resourceVersion": version.to_string(),
           "labels": {"kubernetes.io/service-name": SERVICE},
           "managedFields": [{"manager": "kube-controller-manager", "operation": "Update"}]})
}

/// A `Status`, as errors are told.
fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
           "code": code, "reason": reason, "message": message})
}

fn gone() -> Value {
    status(410, "Expired", "too old resource version")
}

impl Cluster {
    fn next_version(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    fn set(&mut self, name: &str, mut slice: Value) {
        let version = self.next_version();
        slice["metadata"] = metadata(name, version);
        let known = self.slices.insert(name.to_owned(), slice.clone());
        let kind = if known.is_some() { "MODIFIED" } else { "ADDED" };
        self.tell(kind, &slice);
    }

    fn tell(&mut self, kind: &str, object: &Value) {
        let line = json!({"type": kind, "object": object}).to_string();
        self.events.push((self.version, line));
    }

    /// A page of the list, or an error.
    fn list(&mut self, query: &BTreeMap<String, String>) -> (u16, Value) {
        let limit = query.get("limit").map_or(usize::MAX, |limit| {
            limit.parse().expect("a number of slices")
        });
        let (version, from) = match query.get("continue") {
            None => {
                let all = self.slices.values().cloned().collect();
                self.paged.insert(self.version, all);
                (self.version, 0)
            }
            Some(token) => {
                let (version, from) = token.split_once('/').expect("a token of this server");
                (
                    version.parse().expect("its version"),
                    from.parse().expect("its index"),
                )
            }
        };
        let Some(all) = self.paged.get(&version) else {
            let message = "The provided continue parameter is too old";
            return (410, status(410, "Expired", message));
        };
        let page: Vec<_> = all.iter().skip(from).take(limit).collect();
        let next = from + page.len();
        let token = (next < all.len()).then(|| format!("{version}/{next}"));
        let list = json!({"kind": "EndpointSliceList", "apiVersion": "discovery.k8s.io/v1",
                          "metadata": {"resourceVersion": version.to_string(), "continue": token},
                          "items": page});
        (200, list)
    }

    /// The lines of a watch after this version.
    fn lines_after(&self, version: u64) -> Vec<(u64, String)> {
        let after = self.events.iter().filter(|(at, _)| *at > version);
        after.cloned().collect()
    }
}

impl Shared {
    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        while let Ok((socket, _)) = listener.accept() {
            let handle = socket.try_clone().expect("another handle");
            self.open.lock().expect("not poisoned").push(handle);
            let shared = Arc::clone(self);
            // A client that closes its connection ends this thread with an error.
            thread::spawn(move || shared.serve(socket));
        }
    }

    fn serve(&self, socket: TcpStream) -> io::Result<()> {
        socket.set_nodelay(true)?;
        let mut connection = match &self.tls {
            None => Connection::over(Box::new(socket))?,
            Some(tls) => {
                let tls = ServerConnection::new(Arc::clone(tls)).map_err(io::Error::other)?;
                Connection::over(Box::new(StreamOwned::new(tls, socket)))?
            }
        };
        loop {
            let (line, fields) = connection.read_request()?;
            let target = line.split(' ').nth(1).unwrap_or_default().to_owned();
            let token = fields.iter().find_map(|(name, value)| {
                let is_token = name.eq_ignore_ascii_case("authorization");
                is_token.then(|| value.strip_prefix("Bearer ").unwrap_or_default())
            });
            self.answer(&mut connection, &target, token)?;
        }
    }

    fn answer(
        &self,
        connection: &mut Connection,
        target: &str,
        token: Option<&str>,
    ) -> io::Result<()> {
        let mut cluster = self.cluster.lock().expect("not poisoned");
        cluster.requests.push(target.to_owned());
        if cluster
            .token
            .as_deref()
            .is_some_and(|expected| token != Some(expected))
        {
            return respond(
                connection,
                401,
                &status(401, "Unauthorized", "Unauthorized"),
            );
        }
        if cluster.is_forbidden {
            let message = "endpointslices.discovery.k8s.io is forbidden: User \"system:serviceaccount:prod:edge\" cannot list resource";
            return respond(connection, 403, &status(403, "Forbidden", message));
        }
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let query = parse_query(query);
        let expected = format!("/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices");
        if path != expected {
            return respond(connection, 404, &status(404, "NotFound", "not found"));
        }
        let selector = query.get("labelSelector").map(String::as_str);
        if selector != Some(&*format!("kubernetes.io/service-name={SERVICE}")) {
            let empty = json!({"metadata": {"resourceVersion": cluster.version.to_string()}, "items": null});
            return respond(connection, 200, &empty);
        }
        if query.get("watch").map(String::as_str) == Some("1") {
            return self.watch(connection, cluster, &query);
        }
        let (code, body) = cluster.list(&query);
        drop(cluster);
        respond(connection, code, &body)
    }

    fn watch(
        &self,
        connection: &mut Connection,
        mut cluster: MutexGuard<'_, Cluster>,
        query: &BTreeMap<String, String>,
    ) -> io::Result<()> {
        let number = |key: &str| -> u64 { query[key].parse().expect("a number") };
        let mut version = number("resourceVersion");
        let deadline = Instant::now() + Duration::from_secs(number("timeoutSeconds"));
        assert_eq!(query["allowWatchBookmarks"], "true");
        let (is_gone, by_status) = (version < cluster.oldest, cluster.tells_gone_by_status);
        if is_gone && by_status {
            return respond(connection, 410, &gone());
        }
        let end = cluster.ends;
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
        connection.send(head)?;
        if is_gone {
            let line = json!({"type": "ERROR", "object": gone()}).to_string();
            return connection.send(chunk(&line) + "0\r\n\r\n");
        }
        loop {
            for (at, line) in cluster.lines_after(version) {
                connection.send(chunk(&line))?;
                version = at;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if cluster.ends != end || left.is_zero() {
                break;
            }
            let waited = self.changed.wait_timeout(cluster, left);
            cluster = waited.expect("not poisoned").0;
        }
        drop(cluster);
        connection.send("0\r\n\r\n")
    }
}

fn chunk(line: &str) -> String {
    format!("{:x}\r\n{line}\n\r\n", line.len() + 1)
}

fn respond(connection: &mut Connection, code: u16, body: &Value) -> io::Result<()> {
    let body = body.to_string();
    let length = body.len();
    connection.send(format!(
        "HTTP/1.1 {code} x\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    ))
}

fn parse_query(query: &str) -> BTreeMap<String, String> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(key, value)| (key.to_owned(), decode(value)))
        .collect()
}

/// Removes percent-encoding.
fn decode(text: &str) -> String {
    let mut parts = text.split('%');
    let mut decoded = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (code, rest) = part.split_at(2);
        let byte = u8::from_str_radix(code, 16).expect("two hexadecimal digits");
        decoded.push(char::from(byte));
        decoded += rest;
    }
    decoded
}
