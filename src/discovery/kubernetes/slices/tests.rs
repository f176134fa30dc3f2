//! Slices and their peers; the order of slices, endpoints and events has no meaning.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// `10.0.0.1 HOSTNAME POD`; `-`: without it; `!` before the address: not ready.
fn endpoint(text: &str) -> ServiceEndpoint {
    let (is_ready, text) = match text.strip_prefix('!') {
        Some(rest) => (false, rest),
        None => (true, text),
    };
    let mut words = text.split(' ');
    let address = words.next().unwrap().parse().unwrap();
    let mut name = || {
        let word = words.next().filter(|word| *word != "-");
        word.map(str::to_owned)
    };
    ServiceEndpoint {
        address,
        hostname: name(),
        target: name(),
        is_ready,
    }
}

fn http() -> ServicePort {
    ServicePort::Name("http".to_owned())
}

fn port(name: &str, number: Option<u16>) -> SlicePort {
    SlicePort {
        name: name.to_owned(),
        number,
    }
}

/// A slice with the port `http`, 80, and endpoints separated by `;`.
fn slice(endpoints: &str) -> EndpointSlice {
    let endpoints = endpoints.split("; ").filter(|text| !text.is_empty());
    EndpointSlice {
        endpoints: SliceEndpoints::Addresses(endpoints.map(endpoint).collect()),
        ports: vec![port("http", Some(80))],
    }
}

fn service(slices: impl IntoIterator<Item = EndpointSlice>) -> ServiceSlices {
    let mut service = ServiceSlices::default();
    let named = slices.into_iter().enumerate();
    service.replace(
        named
            .map(|(number, slice)| (format!("s-{number}"), Ok(slice)))
            .collect(),
    );
    service
}

/// `LABEL=ADDRESS` of each peer, and the number of notes.
fn shown(service: &ServiceSlices, port: &ServicePort) -> (String, usize) {
    let found = service.peers(port);
    let peers = found.peers.iter();
    let peers = peers.map(|peer| format!("{}={}", peer.label, peer.address));
    (peers.collect::<Vec<_>>().join(" "), found.notes.len())
}

fn peers(slices: &[&str]) -> (String, usize) {
    let slices = slices.iter().map(|text| slice(text));
    shown(&service(slices), &http())
}

#[test]
fn label_is_the_hostname_else_the_pod_else_the_address() {
    for (slices, expected, notes) in [
        (&["10.0.0.1 app-0 pod-a"][..], "app-0=10.0.0.1:80", 0),
        (&["10.0.0.1 - pod-a"], "pod-a=10.0.0.1:80", 0),
        (&["10.0.0.1"], "10.0.0.1:80=10.0.0.1:80", 0),
        (&["::1"], "[::1]:80=[::1]:80", 0),
        // In the order of labels, over all slices.
        (
            &["10.0.0.2 - c; 10.0.0.3 - a", "10.0.0.1 - b"],
            "a=10.0.0.3:80 b=10.0.0.1:80 c=10.0.0.2:80",
            0,
        ),
        // One hostname of several pods, and of one pod with two addresses.
        (
            &["10.0.0.1 app p; 10.0.0.2 app q"],
            "p=10.0.0.1:80 q=10.0.0.2:80",
            1,
        ),
        (
            &["10.0.0.1 app; 10.0.0.2 app"],
            "10.0.0.1:80=10.0.0.1:80 10.0.0.2:80=10.0.0.2:80",
            1,
        ),
        (&["10.0.0.2 app p; 10.0.0.1 app p"], "app=10.0.0.1:80", 0),
    ] {
        assert_eq!(peers(slices), (expected.to_owned(), notes), "{slices:?}");
    }
}

#[test]
fn address_in_several_slices_is_one_peer_which_is_ready_if_it_is_so_in_any() {
    for (slices, expected) in [
        (&["10.0.0.1 - p", "10.0.0.1 - p"][..], "p=10.0.0.1:80"),
        (&["!10.0.0.1 - p", "10.0.0.1 - p"], "p=10.0.0.1:80"),
        (&["10.0.0.1 - p; !10.0.0.1 - p"], "p=10.0.0.1:80"),
        (&["!10.0.0.1 - p", "!10.0.0.1 - p"], ""),
        (&["10.0.0.1", "10.0.0.1 - p"], "p=10.0.0.1:80"),
        (&["10.0.0.1 - p", "10.0.0.1 app-0"], "app-0=10.0.0.1:80"),
        // A pod that was replaced: only its new address is ready.
        (
            &["!10.0.0.1 app-0 app-0; 10.0.0.9 app-0 app-0"],
            "app-0=10.0.0.9:80",
        ),
    ] {
        assert_eq!(peers(slices), (expected.to_owned(), 0), "{slices:?}");
    }
}

#[test]
fn pod_of_a_dual_stack_cluster_is_one_peer_with_its_ipv4_address() {
    for (slices, expected) in [
        (
            &["10.0.0.1 app-0 p", "fd00::1 app-0 p"][..],
            "app-0=10.0.0.1:80",
        ),
        (&["fd00::1 - p", "10.0.0.1 - p"], "p=10.0.0.1:80"),
        (&["!10.0.0.1 - p", "fd00::1 - p"], "p=[fd00::1]:80"),
        (
            &[
                "10.0.0.1 app p; 10.0.0.2 app q",
                "fd00::1 app p; fd00::2 app q",
            ],
            "p=10.0.0.1:80 q=10.0.0.2:80",
        ),
    ] {
        assert_eq!(peers(slices).0, expected, "{slices:?}");
    }
}

#[test]
fn port_is_found_by_name_or_by_number() {
    let slice = |ports: &[(&str, Option<u16>)]| EndpointSlice {
        ports: ports
            .iter()
            .map(|(name, number)| port(name, *number))
            .collect(),
        ..slice("10.0.0.1 - p")
    };
    let name = |name: &str| ServicePort::Name(name.to_owned());
    let two = &[("http", Some(80)), ("metrics", Some(9100))][..];
    for (ports, wanted, expected) in [
        (two, name("metrics"), Some(9100)),
        (two, ServicePort::Number(80), Some(80)),
        (two, name("grpc"), None),
        (two, ServicePort::Number(81), None),
        (&[("", Some(80))], ServicePort::Number(80), Some(80)),
        (&[("", None)], ServicePort::Number(8080), Some(8080)),
        (&[("http", None)], name("http"), None),
        (&[], ServicePort::Number(80), None),
    ] {
        let expected = match expected {
            Some(number) => (format!("p=10.0.0.1:{number}"), 0),
            None => (String::new(), 1),
        };
        assert_eq!(
            shown(&service([slice(ports)]), &wanted),
            expected,
            "{ports:?}"
        );
    }
    let note = service([slice(two)]).peers(&name("grpc")).notes;
    let note = note.first().unwrap();
    assert!(
        note.contains("`grpc`") && note.ends_with("it has: http (80), metrics (9100)"),
        "{note}"
    );
}

#[test]
fn slice_that_has_no_peers_is_noted_unless_it_is_empty() {
    let fqdn = |count| EndpointSlice {
        endpoints: SliceEndpoints::Other {
            address_type: "FQDN".to_owned(),
            count,
        },
        ports: vec![port("http", Some(80))],
    };
    let empty = EndpointSlice {
        ports: Vec::new(),
        ..slice("")
    };
    for (slices, notes) in [
        (vec![fqdn(1)], 1),
        (vec![fqdn(0)], 0),
        (vec![empty], 0),
        (vec![], 1),
        (vec![fqdn(2), slice("10.0.0.1 - p")], 1),
    ] {
        let found = shown(&service(slices.clone()), &http());
        assert_eq!(found.1, notes, "{slices:?}");
    }
}

#[test]
fn slice_that_cannot_be_read_keeps_its_last_state() {
    let mut service = service([slice("10.0.0.1 - p"), slice("10.0.0.2 - q")]);
    let broken = |name: &str| (name.to_owned(), Err("no".to_owned()));
    let both = "p=10.0.0.1:80 q=10.0.0.2:80";
    service.set(broken("s-0"));
    assert_eq!(shown(&service, &http()), (both.to_owned(), 1));
    service.replace(vec![
        broken("s-0"),
        ("s-1".to_owned(), Ok(slice("10.0.0.3 - q"))),
    ]);
    let expected = "p=10.0.0.1:80 q=10.0.0.3:80";
    assert_eq!(shown(&service, &http()), (expected.to_owned(), 1));
    service.set(("s-0".to_owned(), Ok(slice("10.0.0.4 - p"))));
    assert_eq!(shown(&service, &http()).1, 0);
    service.set(broken("s-0"));
    service.remove("s-0");
    assert_eq!(shown(&service, &http()), ("q=10.0.0.3:80".to_owned(), 0));
    // A new slice that cannot be read has no state before.
    service.set(broken("s-2"));
    assert_eq!(shown(&service, &http()), ("q=10.0.0.3:80".to_owned(), 1));
}

#[test]
fn peers_beyond_the_limit_are_left_out_and_noted() {
    let endpoint = |number: u32| ServiceEndpoint {
        address: IpAddr::V4((0x0a00_0000 + number).into()),
        hostname: None,
        target: Some(format!("pod-{number:05}")),
        is_ready: true,
    };
    let all = EndpointSlice {
        endpoints: SliceEndpoints::Addresses((0..10_050).map(endpoint).collect()),
        ..slice("")
    };
    let found = service([all]).peers(&http());
    assert_eq!((found.peers.len(), found.notes.len()), (MAX_PEERS, 1));
}

fn endpoints() -> impl Strategy<Value = Vec<ServiceEndpoint>> {
    let name = |prefix: &'static str| {
        prop::option::weighted(0.7, (0..4_u8).prop_map(move |n| format!("{prefix}{n}")))
    };
    let address = (any::<bool>(), 1..6_u8).prop_map(|(is_v4, last)| {
        if is_v4 {
            IpAddr::from([10, 0, 0, last])
        } else {
            IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(last)])
        }
    });
    let endpoint = (
        address,
        name("host-"),
        name("pod-"),
        prop::bool::weighted(0.7),
    );
    let endpoint = endpoint.prop_map(|(address, hostname, target, is_ready)| ServiceEndpoint {
        address,
        hostname,
        target,
        is_ready,
    });
    vec(endpoint, 0..12)
}

/// The endpoints in slices: that of each endpoint is its item of `places`.
fn spread(endpoints: &[ServiceEndpoint], places: &[u8]) -> ServiceSlices {
    let mut slices: BTreeMap<u8, Vec<ServiceEndpoint>> = BTreeMap::from([(0, Vec::new())]);
    for (endpoint, place) in endpoints.iter().zip(places) {
        slices.entry(*place).or_default().push(endpoint.clone());
    }
    service(slices.into_values().map(|endpoints| EndpointSlice {
        endpoints: SliceEndpoints::Addresses(endpoints),
        ..slice("")
    }))
}

proptest! {
    #[test]
    fn peers_do_not_depend_on_the_order_or_the_slice_of_their_endpoints(
        endpoints in endpoints(),
        places in vec(0..4_u8, 12),
        shuffled in Just((0..12_usize).collect::<Vec<_>>()).prop_shuffle(),
        doubled in 0..12_usize,
    ) {
        let one = spread(&endpoints, &[0; 12]).peers(&http());
        let order = shuffled.iter().filter_map(|index| endpoints.get(*index)).cloned();
        let mut others: Vec<_> = order.collect();
        others.extend(others.get(doubled).cloned());
        let places: Vec<_> = places.into_iter().chain([3]).collect();
        prop_assert_eq!(&spread(&others, &places).peers(&http()), &one);
    }

    #[test]
    fn each_peer_is_a_ready_endpoint_and_labels_and_addresses_are_unique(endpoints in endpoints()) {
        let found = spread(&endpoints, &[0; 12]).peers(&http()).peers;
        let labels: BTreeSet<_> = found.iter().map(|peer| &peer.label).collect();
        let addresses: BTreeSet<_> = found.iter().map(|peer| peer.address).collect();
        prop_assert_eq!(labels.len(), found.len());
        prop_assert_eq!(addresses.len(), found.len());
        for address in addresses {
            let is_ready = |endpoint: &ServiceEndpoint| endpoint.is_ready && endpoint.address == address.ip();
            prop_assert!(endpoints.iter().any(is_ready));
        }
    }

    #[test]
    fn events_in_any_order_between_slices_lead_to_the_list_that_a_new_list_has(
        events in vec((0..3_u8, prop::option::of(endpoints())), 0..12),
    ) {
        let slice_of = |endpoints: &Vec<ServiceEndpoint>| EndpointSlice {
            endpoints: SliceEndpoints::Addresses(endpoints.clone()),
            ..slice("")
        };
        let mut watched = ServiceSlices::default();
        let mut last: BTreeMap<String, EndpointSlice> = BTreeMap::new();
        for (number, endpoints) in &events {
            let name = format!("s-{number}");
            if let Some(endpoints) = endpoints {
                watched.set((name.clone(), Ok(slice_of(endpoints))));
                last.insert(name, slice_of(endpoints));
            } else {
                watched.remove(&name);
                last.remove(&name);
            }
        }
        let mut listed = ServiceSlices::default();
        listed.replace(last.into_iter().rev().map(|(name, slice)| (name, Ok(slice))).collect());
        prop_assert_eq!(watched.peers(&http()), listed.peers(&http()));
    }
}
