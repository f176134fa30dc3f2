//! The address of a peer.
//!
//! Its text form is the configured one: `10.0.0.1:8080`, `[2001:db8::1]:8080`, `unix:/run/app.sock`; `unresolved`
//! without an address.
//! Exported state has addresses in this form.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

const UNIX: &str = "unix:";
const UNRESOLVED: &str = "unresolved";

/// The resolved address of a peer.
#[derive(Clone, Debug, Hash, PartialEq, Eq)]
pub enum Address {
    /// An IP address and a port.
    Ip(SocketAddr),
    /// The path of a Unix socket.
    Unix(Arc<Path>),
    /// None: the configured name has not been resolved yet.
    Unresolved,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
            Self::Unresolved => f.write_str(UNRESOLVED),
        }
    }
}

impl FromStr for Address {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix(UNIX) {
            _ if text == UNRESOLVED => Ok(Self::Unresolved),
            Some(path) => Ok(Self::Unix(Path::new(path).into())),
            None => text.parse().map(Self::Ip),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(address)
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_address_roundtrips_as_text() {
        for text in [
            "10.0.0.1:80",
            "[2001:db8::1]:8080",
            "unix:/run/a.sock",
            "unresolved",
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
            let json = serde_json::to_string(&address).unwrap();
            assert_eq!(json, format!("\"{text}\""));
            assert_eq!(serde_json::from_str::<Address>(&json).unwrap(), address);
        }
        assert!("app.test:80".parse::<Address>().is_err());
    }
}
