//! `server_name`: the name that is verified in the certificate of a peer.

use rustls_pki_types::ServerName;

use crate::config::fields::text;
use crate::config::raw::YamlNode;
use crate::config::report::quote;
use crate::config::values::InvalidValue;

/// A name that a certificate can have: a DNS name, or an IP address.
pub(super) fn read(node: &YamlNode) -> Result<String, InvalidValue> {
    let name = text(node, "a host name")?;
    if ServerName::try_from(name).is_ok() {
        return Ok(name.to_ascii_lowercase());
    }
    let help = "use a host name or an IP address, without a port, as in `app.example.com`";
    Err((
        format!("{} is not a host name or IP address", quote(name)),
        help.to_owned(),
    ))
}
