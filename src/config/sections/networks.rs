//! Lists of trusted networks.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::fields::{collect_until_full, items_or_one, parse_or_report, text};
use crate::config::raw::YamlNode;
use crate::config::report::{Problem, Problems, quote};
use crate::config::values::InvalidValue;

/// The networks at `node`: a list, or a single one.
pub(super) fn networks(node: &YamlNode, problems: &Problems) -> Vec<IpNet> {
    collect_until_full(items_or_one(node), problems, |item| {
        let net = parse_or_report(item, problems, network)?;
        warn_trusts_any_address(item, net, problems);
        Some(net)
    })
}

fn warn_trusts_any_address(node: &YamlNode, net: IpNet, problems: &Problems) {
    if net.prefix_len() == 0 {
        let message = format!("trusting `{net}` lets every client forge its address");
        let help = "list only the networks of the proxies in front of this one";
        problems.add(Problem::warning(message, node.error_span()).help(help));
    }
}

/// A network, or a single address.
fn network(node: &YamlNode) -> Result<IpNet, InvalidValue> {
    let text = text(node, "a network like `10.0.0.0/8`")?;
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(address));
    }
    let Ok(net) = text.parse::<IpNet>() else {
        let help = "use an address or a network, as in `10.0.0.0/8` or `\"fd00::/8\"`".to_owned();
        return Err((format!("{} is not a network", quote(text)), help));
    };
    if net.trunc() != net {
        let help = format!(
            "write `{}` for the network, `{}` for the single address",
            net.trunc(),
            net.addr()
        );
        return Err((
            format!("{} has bits set after its prefix", quote(text)),
            help,
        ));
    }
    Ok(net)
}
