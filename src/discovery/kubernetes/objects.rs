//! The objects of the API as JSON: a page of a list, an event of a watch, an error. Pure.
//!
//! Lists of Go that are empty may be `null` or left out. Only the fields that are used are read; others may be added by
//! newer versions.

use std::net::IpAddr;

use serde::Deserialize;
use serde_json::Value;

use super::slices::{EndpointSlice, NamedSlice, ServiceEndpoint, SliceEndpoints, SlicePort};

/// A page of a list.
#[derive(Debug, PartialEq)]
pub(super) struct SlicePage {
    /// The version of the whole list, from which a watch can start.
    pub(super) version: String,
    /// The token of the next page; `None`: this is the last one.
    pub(super) next: Option<String>,
    /// The slices.
    pub(super) slices: Vec<NamedSlice>,
}

/// An event of a watch.
#[derive(Debug, PartialEq)]
pub(super) enum SliceEvent {
    /// A slice was added or changed.
    Changed {
        /// The slice.
        slice: NamedSlice,
        /// From which the watch can be continued.
        version: Option<String>,
    },
    /// The slice with this name was removed.
    Removed {
        /// Its name.
        name: String,
        /// From which the watch can be continued.
        version: Option<String>,
    },
    /// Nothing has changed up to this version.
    Bookmark {
        /// From which the watch can be continued.
        version: Option<String>,
    },
    /// The watch has failed.
    Error(ApiStatus),
}

/// An error that the API server describes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct ApiStatus {
    /// The HTTP status; 0: not said.
    pub(super) code: u16,
    /// A word for programs.
    pub(super) reason: String,
    /// A text for people.
    pub(super) message: String,
}

impl ApiStatus {
    /// Reads the body of a response; another body has no message.
    pub(super) fn of_response(code: u16, body: &[u8]) -> Self {
        let status = serde_json::from_slice(body).unwrap_or_default();
        Self { code, ..status }
    }

    /// Whether the version or the token of a page is too old.
    pub(super) fn is_expired(&self) -> bool {
        self.code == 410 || matches!(&*self.reason, "Expired" | "Gone")
    }
}

/// Reads a page of a list.
///
/// # Errors
/// It is not a list of objects with names.
pub(super) fn parse_page(text: &[u8]) -> Result<SlicePage, String> {
    let list: ListObject = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let slices = list.items.unwrap_or_default().into_iter().map(named_slice);
    Ok(SlicePage {
        version: list
            .metadata
            .version()
            .ok_or("the list has no `resourceVersion`")?,
        next: list.metadata.next.filter(|token| !token.is_empty()),
        slices: slices.collect::<Result<_, _>>()?,
    })
}

/// Reads a line of a watch.
///
/// # Errors
/// It is not an event, or its object has no name.
pub(super) fn parse_event(line: &[u8]) -> Result<SliceEvent, String> {
    let event: EventObject = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    if event.kind == "ERROR" {
        let status = serde_json::from_value(event.object);
        return status
            .map(SliceEvent::Error)
            .map_err(|error| error.to_string());
    }
    let metadata = metadata(&event.object)?;
    let version = metadata.version();
    match &*event.kind {
        "ADDED" | "MODIFIED" => Ok(SliceEvent::Changed {
            slice: named_slice(event.object)?,
            version,
        }),
        "DELETED" => Ok(SliceEvent::Removed {
            name: metadata.name.ok_or(NAMELESS)?,
            version,
        }),
        "BOOKMARK" => Ok(SliceEvent::Bookmark { version }),
        other => Err(format!("unknown event `{other}`")),
    }
}

const NAMELESS: &str = "an object has no `metadata.name`";

fn metadata(object: &Value) -> Result<ObjectMeta, String> {
    let metadata = object.get("metadata").ok_or(NAMELESS)?;
    ObjectMeta::deserialize(metadata).map_err(|error| error.to_string())
}

fn named_slice(object: Value) -> Result<NamedSlice, String> {
    let name = metadata(&object)?.name.ok_or(NAMELESS)?;
    let slice = serde_json::from_value(object).map_err(|error| error.to_string());
    Ok((name, slice.and_then(SliceObject::into_slice)))
}

#[derive(Deserialize)]
struct EventObject {
    #[serde(rename = "type")]
    kind: String,
    object: Value,
}

#[derive(Deserialize)]
struct ListObject {
    metadata: ListMeta,
    items: Option<Vec<Value>>,
}

#[derive(Deserialize)]
struct ListMeta {
    #[serde(rename = "resourceVersion")]
    version: Option<String>,
    #[serde(rename = "continue")]
    next: Option<String>,
}

impl ListMeta {
    fn version(&self) -> Option<String> {
        self.version.clone().filter(|version| !version.is_empty())
    }
}

#[derive(Deserialize)]
struct ObjectMeta {
    name: Option<String>,
    #[serde(rename = "resourceVersion")]
    version: Option<String>,
}

impl ObjectMeta {
    fn version(&self) -> Option<String> {
        self.version.clone().filter(|version| !version.is_empty())
    }
}

#[derive(Deserialize)]
struct SliceObject {
    #[serde(rename = "addressType")]
    address_type: String,
    endpoints: Option<Vec<EndpointObject>>,
    ports: Option<Vec<PortObject>>,
}

#[derive(Deserialize)]
struct EndpointObject {
    addresses: Option<Vec<String>>,
    conditions: Option<ConditionsObject>,
    hostname: Option<String>,
    #[serde(rename = "targetRef")]
    target: Option<TargetObject>,
}

#[derive(Default, Deserialize)]
struct ConditionsObject {
    ready: Option<bool>,
    terminating: Option<bool>,
}

#[derive(Deserialize)]
struct TargetObject {
    name: Option<String>,
}

#[derive(Deserialize)]
struct PortObject {
    name: Option<String>,
    port: Option<u16>,
    protocol: Option<String>,
}

impl SliceObject {
    fn into_slice(self) -> Result<EndpointSlice, String> {
        let endpoints = self.endpoints.unwrap_or_default();
        let endpoints = match &*self.address_type {
            "IPv4" | "IPv6" => {
                let read = endpoints.into_iter().map(EndpointObject::into_endpoint);
                SliceEndpoints::Addresses(read.collect::<Result<_, _>>()?)
            }
            _ => SliceEndpoints::Other {
                address_type: self.address_type,
                count: endpoints.len(),
            },
        };
        let ports = self.ports.unwrap_or_default().into_iter();
        Ok(EndpointSlice {
            endpoints,
            ports: ports.filter_map(PortObject::into_tcp_port).collect(),
        })
    }
}

impl EndpointObject {
    /// All addresses of an endpoint are alike, and only the first is to be used ("`EndpointSlice` v1", `addresses`).
    fn into_endpoint(self) -> Result<ServiceEndpoint, String> {
        let addresses = self.addresses.unwrap_or_default();
        let first = addresses.first().ok_or("an endpoint has no address")?;
        let address: IpAddr = first
            .parse()
            .map_err(|_| format!("`{first}` is not an IP address"))?;
        let conditions = self.conditions.unwrap_or_default();
        let is_name = |name: &String| !name.is_empty();
        Ok(ServiceEndpoint {
            address: address.to_canonical(),
            hostname: self.hostname.filter(is_name),
            target: self.target.and_then(|target| target.name).filter(is_name),
            is_ready: conditions.ready.unwrap_or(true) && !conditions.terminating.unwrap_or(false),
        })
    }
}

impl PortObject {
    /// `None`: the port of another protocol.
    fn into_tcp_port(self) -> Option<SlicePort> {
        let protocol = self.protocol.as_deref().unwrap_or("TCP");
        (protocol == "TCP").then(|| SlicePort {
            name: self.name.unwrap_or_default(),
            number: self.port,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is read of one endpoint with these fields.
    fn endpoint(fields: &str) -> Result<ServiceEndpoint, String> {
        let line = format!(
            r#"{{"type":"ADDED","object":{{"metadata":{{"name":"a"}},"addressType":"IPv4","endpoints":[{{{fields}}}]}}}}"#
        );
        let SliceEvent::Changed { slice, .. } = parse_event(line.as_bytes())? else {
            panic!("{line}");
        };
        match slice.1?.endpoints {
            SliceEndpoints::Addresses(mut endpoints) => Ok(endpoints.remove(0)),
            SliceEndpoints::Other { .. } => panic!("{line}"),
        }
    }

    #[test]
    fn endpoint_is_ready_unless_its_conditions_say_otherwise() {
        for (conditions, expected) in [
            ("", true),
            (r#", "conditions": {}"#, true),
            (r#", "conditions": null"#, true),
            (r#", "conditions": {"ready": null}"#, true),
            (r#", "conditions": {"ready": true}"#, true),
            (r#", "conditions": {"ready": false}"#, false),
            (
                r#", "conditions": {"ready": false, "serving": true}"#,
                false,
            ),
            (
                r#", "conditions": {"ready": false, "serving": true, "terminating": true}"#,
                false,
            ),
            (
                r#", "conditions": {"ready": true, "serving": true, "terminating": true}"#,
                false,
            ),
            (r#", "conditions": {"serving": true}"#, true),
        ] {
            let read = endpoint(&format!(r#""addresses": ["10.0.0.1"]{conditions}"#)).unwrap();
            assert_eq!(read.is_ready, expected, "{conditions}");
        }
    }

    #[test]
    fn endpoint_has_the_first_address_and_the_names() {
        let read = endpoint(
            r#""addresses":["::ffff:10.0.0.1","10.0.0.2"],"hostname":"app-0","nodeName":"n","zone":"z",
               "hints":{"forZones":[{"name":"z"}]},"targetRef":{"kind":"Pod","name":"app-0","uid":"1"}"#,
        );
        let expected = ServiceEndpoint {
            address: [10, 0, 0, 1].into(),
            hostname: Some("app-0".to_owned()),
            target: Some("app-0".to_owned()),
            is_ready: true,
        };
        assert_eq!(read, Ok(expected));
        let read = endpoint(r#""addresses":["10.0.0.1"],"hostname":"","targetRef":{}"#).unwrap();
        assert_eq!((read.hostname, read.target), (None, None));
    }

    #[test]
    fn object_that_is_broken_keeps_its_name() {
        for (fields, problem) in [
            (r#""addresses":["10.0.0.999"]"#, "not an IP address"),
            (r#""addresses":[]"#, "no address"),
            ("", "no address"),
            (r#""addresses":[7]"#, "invalid type"),
        ] {
            let error = endpoint(fields).unwrap_err();
            assert!(error.contains(problem), "{fields}: {error}");
        }
        let line = br#"{"type":"MODIFIED","object":{"metadata":{"name":"app-x","resourceVersion":"7"},"addressType":3}}"#;
        let Ok(SliceEvent::Changed { slice, version }) = parse_event(line) else {
            panic!("an event with a name");
        };
        assert_eq!((&*slice.0, version.as_deref()), ("app-x", Some("7")));
        assert!(slice.1.is_err());
    }

    #[test]
    fn events_are_told_apart_by_their_type() {
        let object = r#"{"metadata":{"name":"a","resourceVersion":"9"},"addressType":"FQDN","endpoints":null}"#;
        let event = |kind: &str, object: &str| {
            parse_event(format!(r#"{{"type":"{kind}","object":{object}}}"#).as_bytes())
        };
        let version = || Some("9".to_owned());
        let removed = SliceEvent::Removed {
            name: "a".to_owned(),
            version: version(),
        };
        assert_eq!(event("DELETED", object), Ok(removed));
        let bookmark = r#"{"kind":"EndpointSlice","metadata":{"resourceVersion":"9","creationTimestamp":null},"addressType":"","endpoints":null,"ports":null}"#;
        let version = version();
        assert_eq!(
            event("BOOKMARK", bookmark),
            Ok(SliceEvent::Bookmark { version })
        );
        let gone = r#"{"kind":"Status","status":"Failure","reason":"Expired","message":"too old resource version: 1 (9)","code":410}"#;
        let Ok(SliceEvent::Error(status)) = event("ERROR", gone) else {
            panic!("an error");
        };
        assert!(status.is_expired() && status.message.contains("too old"));
        assert!(event("ADDED", "{}").is_err());
        assert!(event("PATCHED", object).unwrap_err().contains("PATCHED"));
        assert!(parse_event(b"{\"type\":\"ADDED\"").is_err());
    }

    #[test]
    fn page_of_a_list_has_a_version_and_the_token_of_the_next_one() {
        let page = parse_page(
            br#"{"kind":"EndpointSliceList","metadata":{"resourceVersion":"5","continue":"abc","remainingItemCount":1},
                "items":[{"metadata":{"name":"a"},"addressType":"IPv4","endpoints":null,
                          "ports":[{"name":"","port":80},{"name":"dns","port":53,"protocol":"UDP"},{"name":"any"}]},
                         {"metadata":{"name":"b"},"addressType":"IPv4","ports":[{"port":70000}]}]}"#,
        )
        .unwrap();
        assert_eq!((&*page.version, page.next.as_deref()), ("5", Some("abc")));
        let [(a, Ok(slice)), (b, Err(_))] = &*page.slices else {
            panic!("{page:?}");
        };
        assert_eq!((&**a, &**b), ("a", "b"));
        let port = |name: &str, number| SlicePort {
            name: name.to_owned(),
            number,
        };
        assert_eq!(slice.ports, [port("", Some(80)), port("any", None)]);
        let last =
            parse_page(br#"{"metadata":{"resourceVersion":"5","continue":""},"items":null}"#);
        assert_eq!(last.unwrap().next, None);
        for text in [
            r#"{"metadata":{},"items":[]}"#,
            r#"{"metadata":{"resourceVersion":"5"},"items":[{}]}"#,
            "<html>",
        ] {
            assert!(parse_page(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn error_of_a_response_is_read_from_any_body() {
        let status = ApiStatus::of_response(403, br#"{"kind":"Status","message":"no","code":1}"#);
        assert_eq!((status.code, &*status.message), (403, "no"));
        let status = ApiStatus::of_response(410, b"gone");
        assert!(status.is_expired() && status.message.is_empty());
    }
}
