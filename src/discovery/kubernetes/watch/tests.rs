//! The watch against a scripted server; the real protocol is tested in `tests/it/peer_kubernetes.rs`.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::*;
use crate::config::{ApiServer, PeerSource, ServicePort};
use crate::discovery::update::{SourceId, SourceUpdate, WatcherNumber};

/// A server that the test answers for.
struct ScriptedServer(TcpListener);

impl ScriptedServer {
    /// Accepts a connection; returns it with the target of its request.
    async fn accept(&self) -> (TcpStream, String) {
        let (mut socket, _) = self.0.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(socket.read_u8().await.unwrap());
        }
        let request = String::from_utf8(request).unwrap();
        let target = request.split(' ').nth(1).unwrap().to_owned();
        (socket, target)
    }

    /// Answers the next request, which must be a list, with these pods.
    async fn answer_list(&self, version: &str, pods: &str) {
        let (mut socket, target) = self.accept().await;
        assert!(!target.contains("watch=1"), "{target}");
        let items = slice(version, pods);
        let body = format!(r#"{{"metadata":{{"resourceVersion":"{version}"}},"items":[{items}]}}"#);
        let length = body.len();
        let response = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}");
        socket.write_all(response.as_bytes()).await.unwrap();
    }

    /// Accepts the next request, which must be a watch, and sends these lines.
    async fn answer_watch(&self, lines: &[String]) -> (TcpStream, String) {
        let (mut socket, target) = self.accept().await;
        assert!(target.contains("&watch=1"), "{target}");
        let text = lines.join("\n") + "\n";
        let response = format!("HTTP/1.1 200 OK\r\n\r\n{text}");
        socket.write_all(response.as_bytes()).await.unwrap();
        (socket, target)
    }
}

fn slice(version: &str, pods: &str) -> String {
    let endpoint = |pod: &str| {
        let (name, last) = pod.split_at(1);
        format!(r#"{{"addresses":["10.0.0.{last}"],"targetRef":{{"name":"{name}"}}}}"#)
    };
    let endpoints: Vec<_> = pods.split_whitespace().map(endpoint).collect();
    format!(
        r#"{{"metadata":{{"name":"s","resourceVersion":"{version}"}},"addressType":"IPv4","ports":[{{"port":80}}],"endpoints":[{}]}}"#,
        endpoints.join(",")
    )
}

fn modified(version: &str, pods: &str) -> String {
    format!(r#"{{"type":"MODIFIED","object":{}}}"#, slice(version, pods))
}

fn error(code: u16, reason: &str) -> String {
    format!(
        r#"{{"type":"ERROR","object":{{"kind":"Status","code":{code},"reason":"{reason}","message":"m"}}}}"#
    )
}

/// What a watch sends.
struct Updates(mpsc::Receiver<SourceUpdate>);

impl Updates {
    /// The next list or error; a source that says the same as before is skipped.
    async fn next(&mut self) -> String {
        loop {
            let list = self.0.recv().await.unwrap().list;
            match list {
                FoundList::Unchanged => {}
                FoundList::Failed(error) => return error,
                FoundList::Peers(peers) | FoundList::Incomplete(peers, _) => {
                    let peers = peers.iter();
                    let peers = peers.map(|peer| format!("{}={}", peer.label, peer.address));
                    return peers.collect::<Vec<_>>().join(" ");
                }
            }
        }
    }
}

/// A watch of a scripted server, which may be silent for 1.1 s.
async fn start() -> (ScriptedServer, Updates) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let service = KubernetesService {
        namespace: "prod".to_owned(),
        service: "app".to_owned(),
        port: ServicePort::Number(80),
    };
    let config = KubernetesConfig {
        server: Some(ApiServer {
            is_tls: false,
            host: "127.0.0.1".to_owned(),
            port: listener.local_addr().unwrap().port(),
            base_path: "/proxy".to_owned(),
        }),
        ..KubernetesConfig::default()
    };
    let (sender, receiver) = mpsc::channel(8);
    let id = SourceId {
        upstream: "app".to_owned(),
        source: PeerSource::Kubernetes(service.clone()),
    };
    let mut watched = WatchedService::new(service, config);
    watched.duration = WatchDuration {
        shortest: Duration::from_secs(1),
        spread: Duration::ZERO,
        grace: Duration::from_millis(100),
    };
    let updates = UpdateSender::new(id, WatcherNumber::next(), sender);
    tokio::spawn(watched.watch(updates));
    (ScriptedServer(listener), Updates(receiver))
}

#[tokio::test]
async fn requests_have_the_selector_the_page_size_the_version_and_the_time() {
    let (server, mut updates) = start().await;
    let (socket, target) = server.accept().await;
    let slices = "/proxy/apis/discovery.k8s.io/v1/namespaces/prod/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3Dapp";
    assert_eq!(target, format!("{slices}&limit=100"));
    drop(socket);
    assert!(updates.next().await.contains("the request has failed"));
    server.answer_list("a/7", "a1").await;
    assert_eq!(updates.next().await, "a=10.0.0.1:80");
    let (_socket, target) = server.answer_watch(&[]).await;
    let expected = "&watch=1&allowWatchBookmarks=true&resourceVersion=a%2F7&timeoutSeconds=1";
    assert_eq!(target, format!("{slices}{expected}"));
}

#[tokio::test]
async fn watch_goes_on_from_the_last_version_after_silence_and_after_its_end() {
    let (server, mut updates) = start().await;
    server.answer_list("1", "a1").await;
    updates.next().await;
    // An event in two pieces, then silence.
    let (mut silent, _) = server.answer_watch(&[]).await;
    let line = modified("2", "a1 b2") + "\n";
    let (one, two) = line.split_at(line.len() / 2);
    silent.write_all(one.as_bytes()).await.unwrap();
    silent.write_all(two.as_bytes()).await.unwrap();
    assert_eq!(updates.next().await, "a=10.0.0.1:80 b=10.0.0.2:80");
    let bookmark = r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"3"}}}"#;
    let (ended, target) = server.answer_watch(&[bookmark.to_owned()]).await;
    assert!(target.contains("&resourceVersion=2&"), "{target}");
    assert_eq!(silent.read(&mut [0; 1]).await.unwrap(), 0, "closed");
    drop(ended);
    let (_socket, target) = server.answer_watch(&[modified("4", "b2")]).await;
    assert!(target.contains("&resourceVersion=3&"), "{target}");
    assert_eq!(updates.next().await, "b=10.0.0.2:80");
}

#[tokio::test]
async fn expired_version_leads_to_a_list_without_a_report() {
    let (server, mut updates) = start().await;
    server.answer_list("1", "a1").await;
    updates.next().await;
    server.answer_watch(&[error(410, "Expired")]).await;
    server.answer_list("9", "a1 c3").await;
    assert_eq!(updates.next().await, "a=10.0.0.1:80 c=10.0.0.3:80");
    let (mut socket, target) = server.accept().await;
    assert!(target.contains("&resourceVersion=9&"), "{target}");
    socket
        .write_all(b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n")
        .await
        .unwrap();
    server.answer_list("12", "a1").await;
    assert_eq!(updates.next().await, "a=10.0.0.1:80");
}

#[tokio::test]
async fn event_that_cannot_be_read_leads_to_a_list() {
    let (server, mut updates) = start().await;
    server.answer_list("1", "a1").await;
    updates.next().await;
    server.answer_watch(&["{\"type\":".to_owned()]).await;
    assert!(
        updates
            .next()
            .await
            .contains("event of the API server is invalid")
    );
    server.answer_list("2", "a1 b2").await;
    assert_eq!(updates.next().await, "a=10.0.0.1:80 b=10.0.0.2:80");
}

#[tokio::test]
async fn watch_that_is_refused_again_and_again_leads_to_a_list() {
    let (server, mut updates) = start().await;
    server.answer_list("1", "a1").await;
    updates.next().await;
    for _ in 0..MAX_REFUSALS {
        server.answer_watch(&[error(504, "Timeout")]).await;
        assert!(updates.next().await.contains("504 Gateway Timeout: m"));
    }
    server.answer_list("1", "b2").await;
    assert_eq!(updates.next().await, "b=10.0.0.2:80");
}
