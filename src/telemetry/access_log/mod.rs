//! The access log: one request as one line of JSON.
//!
//! The line is rendered by hand, because every request has one: no allocation once the buffer of the
//! thread has grown, no reflection. It is valid JSON for any bytes of a client: see [`json_line`].
//!
//! The query of the target is not logged: it often holds tokens, session ids and search words, and an
//! operator seldom needs it. Logs are copied to more places than requests.

mod json_line;

use std::cell::RefCell;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use jiff::Timestamp;

use self::json_line::{
    address, boolean, hex, integer, json_string, or_null, plain_string, seconds, time,
};
use super::log_writer::LogWriter;

/// The fields of one line. `None` is rendered as `null`, so that every line has every field.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AccessLogRecord<'a> {
    /// The time at which the request header was complete; rendered in UTC with milliseconds (RFC 3339).
    pub time: Timestamp,
    /// The address of the client; the one that trusted proxies report, if the client is behind them.
    pub client: IpAddr,
    /// The listener's address as configured.
    pub listener: &'a str,
    /// The protocol of the request, for example `HTTP/1.1`.
    pub protocol: &'a str,
    /// The PROXY header of the connection; `None`: it has none.
    pub proxy_protocol: Option<LoggedProxyHeader<'a>>,
    /// TLS of the connection; `None`: it is not encrypted.
    pub tls: Option<LoggedTls<'a>>,
    /// The method of the request.
    pub method: &'a str,
    /// The `Host` as the client sent it.
    pub host: Option<&'a [u8]>,
    /// The path of the target, without its query.
    pub path: &'a [u8],
    /// The status of the response; 0: no response was sent.
    pub status: u16,
    /// Bytes of request body received.
    pub received: u64,
    /// Bytes of response body sent.
    pub sent: u64,
    /// The time from the end of the request header to the end of the response. This and the other
    /// durations are rendered in seconds with microseconds.
    pub duration: Duration,
    /// The time to establish the connection to the last peer; `None`: an open connection was reused, or
    /// none was established.
    pub connect: Option<Duration>,
    /// The time from the start to the header of the response of the peer.
    pub first_byte: Option<Duration>,
    /// The name of the route's upstream.
    pub upstream: Option<&'a str>,
    /// The label of the peer of the last attempt.
    pub peer: Option<&'a str>,
    /// The key source that the key came from.
    pub key_source: Option<&'a str>,
    /// The hash of the key in the dialect of the upstream; rendered as 8 hexadecimal digits, or 16 above
    /// 32 bits. It is enough to replay the log through a ring, and does not reveal the key, except to a
    /// search that tries all keys.
    pub key_hash: Option<u64>,
    /// The number of attempts.
    pub attempts: u32,
    /// The request id that was sent to the peers.
    pub request_id: Option<&'a [u8]>,
    /// The client's `User-Agent`.
    pub user_agent: Option<&'a [u8]>,
    /// The fault, if the request failed.
    pub fault: Option<&'a str>,
}

/// The logged fields of a PROXY header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LoggedProxyHeader<'a> {
    /// The address of the sender of the header; `None`: it came over a Unix socket.
    pub from: Option<SocketAddr>,
    /// The version of the PROXY protocol.
    pub version: u8,
    /// `client`: the header names a client; `local`: the connection is the sender's own; or `unknown`.
    pub origin: &'a str,
    /// The server name that the client asked for (authority TLV).
    pub authority: Option<&'a [u8]>,
    /// The id that the sender gave the connection (unique id TLV).
    pub unique_id: Option<&'a [u8]>,
    /// The TLS version between the client and the sender (SSL TLV).
    pub tls: Option<&'a [u8]>,
}

/// The logged fields of a TLS connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LoggedTls<'a> {
    /// The version, for example `1.3`.
    pub version: &'a str,
    /// The cipher suite.
    pub cipher: &'a str,
    /// The server name that the client asked for.
    pub sni: Option<&'a str>,
    /// Whether the handshake resumed a session.
    pub resumed: bool,
    /// The subject name of the client certificate.
    pub client: Option<&'a str>,
}

/// The most bytes of the line buffer that a thread keeps; after a longer line the excess is freed.
const MAX_RETAINED_CAPACITY: usize = 16 * 1024;

impl AccessLogRecord<'_> {
    /// Appends the line to a log, without waiting until it is written.
    pub(crate) fn log(&self, writer: &LogWriter) {
        thread_local! {
            static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        if writer.is_off() {
            return;
        }
        LINE.with_borrow_mut(|line| {
            line.clear();
            self.render(line);
            writer.append(line);
            line.clear();
            line.shrink_to(MAX_RETAINED_CAPACITY);
        });
    }

    /// Appends the line, with its line feed.
    pub(crate) fn render(&self, line: &mut Vec<u8>) {
        self.render_request(line);
        self.render_outcome(line);
        self.render_routing(line);
        line.extend_from_slice(b"}\n");
    }

    fn render_request(&self, line: &mut Vec<u8>) {
        line.extend_from_slice(b"{\"time\":");
        time(line, self.time);
        line.extend_from_slice(b",\"client\":");
        address(line, self.client);
        line.extend_from_slice(b",\"listener\":");
        json_string(line, self.listener.as_bytes());
        line.extend_from_slice(b",\"protocol\":");
        plain_string(line, self.protocol);
        self.render_connection(line);
        line.extend_from_slice(b",\"method\":");
        json_string(line, self.method.as_bytes());
        line.extend_from_slice(b",\"host\":");
        or_null(line, self.host, json_string);
        line.extend_from_slice(b",\"path\":");
        json_string(line, self.path);
    }

    fn render_connection(&self, line: &mut Vec<u8>) {
        if self.proxy_protocol.is_none() && self.tls.is_none() {
            return line.extend_from_slice(b",\"proxy_protocol\":null,\"tls\":null");
        }
        line.extend_from_slice(b",\"proxy_protocol\":");
        or_null(line, self.proxy_protocol, proxy_header);
        line.extend_from_slice(b",\"tls\":");
        or_null(line, self.tls, tls);
    }

    fn render_outcome(&self, line: &mut Vec<u8>) {
        line.extend_from_slice(b",\"status\":");
        integer(line, self.status.into());
        line.extend_from_slice(b",\"received\":");
        integer(line, self.received);
        line.extend_from_slice(b",\"sent\":");
        integer(line, self.sent);
        line.extend_from_slice(b",\"duration\":");
        seconds(line, self.duration);
        line.extend_from_slice(b",\"connect\":");
        or_null(line, self.connect, seconds);
        line.extend_from_slice(b",\"first_byte\":");
        or_null(line, self.first_byte, seconds);
    }

    fn render_routing(&self, line: &mut Vec<u8>) {
        line.extend_from_slice(b",\"upstream\":");
        or_null(line, self.upstream.map(str::as_bytes), json_string);
        line.extend_from_slice(b",\"peer\":");
        or_null(line, self.peer.map(str::as_bytes), json_string);
        line.extend_from_slice(b",\"key_source\":");
        or_null(line, self.key_source, plain_string);
        line.extend_from_slice(b",\"key_hash\":");
        or_null(line, self.key_hash, hex);
        line.extend_from_slice(b",\"attempts\":");
        integer(line, self.attempts.into());
        line.extend_from_slice(b",\"request_id\":");
        or_null(line, self.request_id, json_string);
        line.extend_from_slice(b",\"user_agent\":");
        or_null(line, self.user_agent, json_string);
        line.extend_from_slice(b",\"fault\":");
        or_null(line, self.fault, plain_string);
    }
}

fn proxy_header(line: &mut Vec<u8>, header: LoggedProxyHeader<'_>) {
    line.extend_from_slice(b"{\"from\":");
    or_null(line, header.from, |line, from| {
        // Writing to a `Vec` never fails. The text of an address needs no escape.
        let _ = write!(line, "\"{from}\"");
    });
    line.extend_from_slice(b",\"version\":");
    integer(line, header.version.into());
    line.extend_from_slice(b",\"origin\":");
    json_string(line, header.origin.as_bytes());
    line.extend_from_slice(b",\"authority\":");
    or_null(line, header.authority, json_string);
    line.extend_from_slice(b",\"unique_id\":");
    or_null(line, header.unique_id, json_string);
    line.extend_from_slice(b",\"tls\":");
    or_null(line, header.tls, json_string);
    line.push(b'}');
}

fn tls(line: &mut Vec<u8>, tls: LoggedTls<'_>) {
    line.extend_from_slice(b"{\"version\":");
    json_string(line, tls.version.as_bytes());
    line.extend_from_slice(b",\"cipher\":");
    json_string(line, tls.cipher.as_bytes());
    line.extend_from_slice(b",\"sni\":");
    or_null(line, tls.sni.map(str::as_bytes), json_string);
    line.extend_from_slice(b",\"resumed\":");
    boolean(line, tls.resumed);
    line.extend_from_slice(b",\"client\":");
    or_null(line, tls.client.map(str::as_bytes), json_string);
    line.push(b'}');
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn access_log_line_matches_the_documentation() {
        let expected = concat!(
            r#"{"time":"2026-01-02T03:04:05.678Z","client":"192.0.2.1","listener":"0.0.0.0:80","#,
            r#""protocol":"HTTP/1.1","proxy_protocol":null,"tls":null,"method":"GET","host":"example.com","path":"/a/b","#,
            r#""status":200,"received":0,"sent":1234567,"duration":1.002003,"connect":null,"#,
            r#""first_byte":0.000450,"upstream":"app","peer":"10.0.0.1:8080","#,
            r#""key_source":"cookie","key_hash":"00c0ffee","attempts":1,"request_id":"0af7","#,
            r#""user_agent":"curl/8","#,
            r#""fault":null}"#,
            "\n"
        );
        assert_eq!(String::from_utf8(rendered(&sample())).unwrap(), expected);
    }

    #[test]
    fn access_log_escapes_hostile_bytes() {
        let path = b"/\"},{\"x\":\\\r\n\x1b[2J\x00\x7f\xc2\x9b\xff\xed\xa0\x80\xe2\x82";
        let line = rendered(&AccessLogRecord { path, ..sample() });
        assert_eq!(line.iter().position(|&b| b == b'\n'), Some(line.len() - 1));
        assert!(!line[..line.len() - 1].iter().any(u8::is_ascii_control));
        assert!(!line.windows(2).any(|pair| pair == [0xc2, 0x9b]));
        assert_eq!(parsed(&line)["path"], *String::from_utf8_lossy(path));
    }

    #[test]
    fn access_log_describes_a_proxy_protocol_connection() {
        let proxy_protocol = Some(LoggedProxyHeader {
            from: Some("10.0.0.1:4711".parse().unwrap()),
            version: 2,
            origin: "client",
            authority: Some(b"a.test"),
            unique_id: None,
            tls: Some(b"TLSv1.3"),
        });
        let expected = concat!(
            r#""proxy_protocol":{"from":"10.0.0.1:4711","version":2,"origin":"client","#,
            r#""authority":"a.test","unique_id":null,"tls":"TLSv1.3"},"tls":null"#
        );
        let record = AccessLogRecord {
            proxy_protocol,
            ..sample()
        };
        let line = String::from_utf8(rendered(&record)).unwrap();
        assert!(line.contains(expected), "{line}");
    }

    #[test]
    fn access_log_describes_a_tls_connection() {
        let tls = Some(LoggedTls {
            version: "1.3",
            cipher: "TLS13_AES_256_GCM_SHA384",
            sni: Some("a.test"),
            resumed: true,
            client: None,
        });
        let expected = concat!(
            r#""tls":{"version":"1.3","cipher":"TLS13_AES_256_GCM_SHA384","sni":"a.test","#,
            r#""resumed":true,"client":null},"method""#
        );
        let line = String::from_utf8(rendered(&AccessLogRecord { tls, ..sample() })).unwrap();
        assert!(line.contains(expected), "{line}");
    }

    #[test]
    fn access_log_time_before_1970_rounds_down() {
        let record = AccessLogRecord {
            time: Timestamp::from_millisecond(-1).unwrap(),
            ..sample()
        };
        assert_eq!(
            parsed(&rendered(&record))["time"],
            "1969-12-31T23:59:59.999Z"
        );
    }

    #[test]
    fn access_log_cached_second_is_not_stale() {
        for second in [0, 1, 0, 59, 60, 86_399, 86_400] {
            let time = Timestamp::from_second(second).unwrap();
            let line = rendered(&AccessLogRecord { time, ..sample() });
            assert_eq!(parsed(&line)["time"], format!("{time:.3}"));
        }
    }

    #[test]
    fn access_log_extreme_values_fit_the_buffer() {
        let record = AccessLogRecord {
            client: Ipv6Addr::from_bits(u128::MAX - 1).into(),
            sent: u64::MAX,
            duration: Duration::MAX,
            status: u16::MAX,
            attempts: u32::MAX,
            ..sample()
        };
        let line = parsed(&rendered(&record));
        assert_eq!(line["sent"], u64::MAX);
        assert_eq!(line["client"], "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe");
    }

    proptest! {
        #[test]
        fn access_log_line_parses_to_the_recorded_values(
            texts in proptest::collection::vec(any::<Vec<u8>>(), 4),
            names in proptest::collection::vec(any::<String>(), 4),
            present in any::<bool>(),
            millisecond in 0_i64..253_402_207_200_000,
            (status, attempts, received, sent) in any::<(u16, u32, u64, u64)>(),
            micros in 0_u64..1 << 50,
        ) {
            let some = |text: &'static str| present.then_some(text);
            let record = AccessLogRecord {
                time: Timestamp::from_millisecond(millisecond).unwrap(),
                listener: &names[0],
                method: &names[1],
                host: present.then_some(&texts[0]),
                path: &texts[1],
                request_id: present.then_some(&texts[2]),
                user_agent: present.then_some(&texts[3]),
                upstream: Some(&names[2]),
                peer: present.then_some(&names[3]),
                fault: some("timeout"),
                duration: Duration::from_micros(micros),
                connect: present.then_some(Duration::from_micros(micros)),
                status, attempts, received, sent,
                ..sample()
            };
            let line = parsed(&rendered(&record));
            let text = |bytes: Option<&[u8]>| {
                bytes.map_or(Value::Null, |b| String::from_utf8_lossy(b).into_owned().into())
            };
            prop_assert_eq!(&line["time"], &format!("{:.3}", record.time));
            prop_assert_eq!(&line["listener"], record.listener);
            prop_assert_eq!(&line["method"], record.method);
            prop_assert_eq!(&line["host"], &text(record.host));
            prop_assert_eq!(&line["path"], &text(Some(record.path)));
            prop_assert_eq!(&line["request_id"], &text(record.request_id));
            prop_assert_eq!(&line["user_agent"], &text(record.user_agent));
            prop_assert_eq!(&line["upstream"], &text(record.upstream.map(str::as_bytes)));
            prop_assert_eq!(&line["peer"], &text(record.peer.map(str::as_bytes)));
            prop_assert_eq!(&line["fault"], &text(record.fault.map(str::as_bytes)));
            prop_assert_eq!(&line["status"], status);
            prop_assert_eq!(&line["attempts"], attempts);
            prop_assert_eq!(&line["received"], received);
            prop_assert_eq!(&line["sent"], sent);
            let seconds = record.duration.as_secs_f64();
            prop_assert!((line["duration"].as_f64().unwrap() - seconds).abs() < 1e-6);
            prop_assert_eq!(line["connect"].is_null(), !present);
            prop_assert_eq!(line.as_object().unwrap().len(), 23);
        }
    }

    fn rendered(record: &AccessLogRecord) -> Vec<u8> {
        let mut line = Vec::new();
        record.render(&mut line);
        line
    }

    fn parsed(line: &[u8]) -> Value {
        serde_json::from_slice(line).unwrap()
    }

    fn sample() -> AccessLogRecord<'static> {
        AccessLogRecord {
            time: "2026-01-02T03:04:05.678999Z".parse().unwrap(),
            client: Ipv4Addr::new(192, 0, 2, 1).into(),
            listener: "0.0.0.0:80",
            protocol: "HTTP/1.1",
            proxy_protocol: None,
            tls: None,
            method: "GET",
            host: Some(b"example.com"),
            path: b"/a/b",
            status: 200,
            received: 0,
            sent: 1_234_567,
            duration: Duration::from_micros(1_002_003),
            connect: None,
            first_byte: Some(Duration::from_micros(450)),
            upstream: Some("app"),
            peer: Some("10.0.0.1:8080"),
            key_source: Some("cookie"),
            key_hash: Some(0x00c0_ffee),
            attempts: 1,
            request_id: Some(b"0af7"),
            user_agent: Some(b"curl/8"),
            fault: None,
        }
    }
}
