//! `clockwise demo`: three origins, the proxy before them, and a switchboard to kill and start them.

mod http;
mod origin;
mod switchboard;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;

use clap::Args;

use self::origin::Origin;
use self::switchboard::Switchboard;
use super::output::Output;
use super::{Done, Failure};
use crate::{config, server, telemetry};

#[derive(Args, Debug)]
pub(super) struct Options {
    /// The proxy's port on 127.0.0.1
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// The admin port
    #[arg(long, default_value_t = 9900)]
    admin_port: u16,
}

/// The origins' names and first choice of port; a taken port is replaced by a free one.
const ORIGINS: [(&str, u16); 3] = [("a", 9001), ("b", 9002), ("c", 9003)];
const SWITCHBOARD_PORT: u16 = 9000;

/// Where everything of one demo is.
struct Ports {
    proxy: SocketAddr,
    admin: SocketAddr,
    switchboard: SocketAddr,
}

pub(super) fn run(options: &Options) -> Done {
    let origins: Vec<Arc<Origin>> = ORIGINS
        .iter()
        .map(|&(name, port)| free(port).map(|address| Arc::new(Origin::new(name, address))))
        .collect::<Result<_, _>>()?;
    let ports = Ports {
        proxy: free(options.port)?,
        admin: free(options.admin_port)?,
        switchboard: free(SWITCHBOARD_PORT)?,
    };
    let text = configuration(&ports, &origins);
    let config =
        config::parse("demo", &text).map_err(|report| Failure::Input(report.to_string()))?;
    telemetry::log::init(config.error_log);
    start_origins(origins.clone(), &ports)?;
    greet(&ports, &origins, &text)?;
    match server::run(server::Launch {
        config,
        source: None,
    }) {
        Ok(_) => Ok(()),
        Err(error) => Err(Failure::Input(format!("error: {error}"))),
    }
}

/// The origins live on threads of their own: the proxy must not know them but over the network.
fn start_origins(origins: Vec<Arc<Origin>>, ports: &Ports) -> Done {
    let failed =
        |error: std::io::Error| Failure::Input(format!("cannot start the demo's origins: {error}"));
    let board = Switchboard {
        origins,
        proxy: ports.proxy,
        address: ports.switchboard,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed)?;
    let serve = move || runtime.block_on(board.serve());
    std::thread::Builder::new()
        .name("origins".to_owned())
        .spawn(serve)
        .map_err(failed)?;
    Ok(())
}

/// The port asked for, or one that the kernel chooses where it is taken.
fn free(port: u16) -> Result<SocketAddr, Failure> {
    let bind = |port| {
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).and_then(|socket| socket.local_addr())
    };
    bind(port)
        .or_else(|_| bind(0))
        .map_err(|error| Failure::Input(format!("no free port on 127.0.0.1: {error}")))
}

fn configuration(ports: &Ports, origins: &[Arc<Origin>]) -> String {
    let control = std::env::temp_dir().join(format!("clockwise-demo-{}.sock", std::process::id()));
    let peer = |origin: &Arc<Origin>| {
        format!(
            "      - {{address: \"{}\", label: {}}}\n",
            origin.address, origin.name
        )
    };
    let peers = origins.iter().map(peer).collect::<Vec<_>>().concat();
    format!(
        "listeners:
  - address: {proxy}
routes:
  - upstream: origins
upstreams:
  origins:
    key: [{{query: user}}, path]
    peers:
{peers}    health: {{tcp: true, interval: 500ms, timeout: 400ms, fall: 1, rise: 1}}
admin: {{address: {admin}}}
control: {control}
drain_timeout: 5s
error_log: {{level: warn}}
",
        proxy = ports.proxy,
        admin = ports.admin,
        control = control.display(),
    )
}

fn greet(ports: &Ports, origins: &[Arc<Origin>], text: &str) -> Done {
    let Ports {
        proxy,
        admin,
        switchboard,
    } = ports;
    let file = std::env::temp_dir().join("clockwise-demo.yaml");
    let saved = std::fs::write(&file, text).is_ok();
    let mut output = Output::stdout();
    output.line(&format!(
        "Clockwise serves on http://{proxy}/ before three origins:"
    ))?;
    for origin in origins {
        output.line(&format!("  {}  http://{}/", origin.name, origin.address))?;
    }
    output.line("")?;
    output.line("Same user, same origin, every time:")?;
    output.line(&format!("  curl 'http://{proxy}/?user=alice'"))?;
    output.line("Where does a key go, and where would it go next? Ask before you act:")?;
    output.line(&format!(
        "  curl 'http://{admin}/v1/upstreams/origins/owner?key=alice'"
    ))?;
    output.line("Kill an origin, and see its keys, and no others, move; then start it again:")?;
    output.line(&format!(
        "  curl http://{switchboard}/keys       # 1,000 keys through the proxy"
    ))?;
    output.line(&format!("  curl http://{switchboard}/kill/b"))?;
    output.line(&format!(
        "  curl http://{switchboard}/keys       # what moved since the last look"
    ))?;
    output.line(&format!("  curl http://{switchboard}/start/b"))?;
    output.line(&format!(
        "The page for operators: http://{admin}/ (counters: http://{admin}/metrics)"
    ))?;
    if saved {
        output.line(&format!("This demo's configuration: {}", file.display()))?;
    }
    output.line("Ctrl-C ends it.")?;
    output.flush()
}
