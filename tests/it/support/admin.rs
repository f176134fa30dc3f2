//! A client of the admin API on the control socket.

use std::io;
use std::path::PathBuf;

use serde_json::Value;

use super::client::{Connection, Request, Response};
use super::wait;

/// The admin API of one instance.
#[derive(Clone)]
pub(crate) struct Admin {
    control: PathBuf,
}

impl Admin {
    pub(crate) fn over(control: PathBuf) -> Self {
        Self { control }
    }

    pub(crate) fn try_get(&self, path: &str) -> io::Result<Response> {
        Connection::unix(&self.control)?.exchange(&Request::get(path).header("Connection", "close"))
    }

    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Response {
        self.try_get(path)
            .unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    #[track_caller]
    pub(crate) fn post(&self, path: &str) -> Response {
        self.post_body(path, "")
    }

    #[track_caller]
    pub(crate) fn post_body(&self, path: &str, body: impl Into<Vec<u8>>) -> Response {
        let request = Request::post(path, body).header("Connection", "close");
        self.connect()
            .exchange(&request)
            .unwrap_or_else(|error| panic!("POST {path}: {error}"))
    }

    /// Sends a request with any method; without a body if it is empty.
    #[track_caller]
    pub(crate) fn send(&self, method: &str, path: &str, body: &str) -> Response {
        let request = Request::new(method, path).header("Connection", "close");
        let request = if body.is_empty() {
            request
        } else {
            request.body(body)
        };
        self.connect()
            .exchange(&request)
            .unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    #[track_caller]
    pub(crate) fn connect(&self) -> Connection {
        Connection::unix(&self.control).expect("the control socket accepts")
    }

    /// The labels of the walk of `key`, owner first.
    pub(crate) fn walk(&self, upstream: &str, key: &str) -> Vec<String> {
        let answer = self
            .get(&format!(
                "/v1/upstreams/{upstream}/owner?key={}",
                encode(key)
            ))
            .json();
        let labels = answer["walk"].as_array().expect("`walk` is an array");
        labels
            .iter()
            .map(|label| label.as_str().expect("a label is text").to_owned())
            .collect()
    }

    /// The state of a peer: `unknown`, `up`, `down` or `draining`.
    pub(crate) fn state(&self, upstream: &str, label: &str) -> String {
        let view = self.get(&format!("/v1/upstreams/{upstream}")).json();
        let peers = view["peers"]
            .as_array()
            .expect("`peers` is an array")
            .iter();
        let peer = peers.clone().find(|peer| peer["label"] == label);
        let peer: &Value = peer.unwrap_or_else(|| panic!("no peer {label} in {view}"));
        peer["state"].as_str().expect("`state` is text").to_owned()
    }

    pub(crate) fn wait_for_state(&self, upstream: &str, label: &str, state: &str) {
        wait::until(&format!("{label} to be {state}"), || {
            self.state(upstream, label) == state
        });
    }

    /// The sum of all samples of a metric with at least these labels (`peer="a"`); 0 without samples. The
    /// values must be whole numbers.
    pub(crate) fn metric(&self, name: &str, labels: &[&str]) -> u64 {
        let samples = self.get("/metrics").text();
        let lines = samples
            .lines()
            .filter_map(|line| value_of(line, name, labels));
        lines.sum()
    }

    /// Waits for a counter, which may increase only after the client has its response.
    #[track_caller]
    pub(crate) fn wait_for_metric(&self, name: &str, labels: &[&str], at_least: u64) {
        let what = format!("{name}{labels:?} to reach {at_least}");
        wait::until(&what, || self.metric(name, labels) >= at_least);
    }
}

/// The value of a line of the Prometheus text format, if it has this name and these labels.
fn value_of(line: &str, name: &str, labels: &[&str]) -> Option<u64> {
    let (series, value) = line.rsplit_once(' ')?;
    let (known, rest) = series.split_once('{').unwrap_or((series, ""));
    let matches = known == name && labels.iter().all(|label| rest.contains(label));
    matches.then(|| value.parse().expect("a whole number"))
}

/// Percent-encodes all bytes but letters and digits.
pub(crate) fn encode(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}
