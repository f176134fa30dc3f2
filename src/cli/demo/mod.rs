//! `clockwise demo`: three origins, the proxy in front of them, and a control server that stops and starts origins.

mod control_server;
mod http;
mod origin;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;

use self::control_server::DemoControlServer;
use self::origin::DemoOrigin;
use super::error::{CliError, CommandResult};
use super::output::Output;
use crate::{config, server, telemetry};

#[derive(Args, Debug)]
pub(super) struct DemoArgs {
    /// The proxy's port on 127.0.0.1 [default: 8080, or a free one]
    #[arg(long)]
    port: Option<u16>,
    /// The admin port [default: 9900, or a free one]
    #[arg(long)]
    admin_port: Option<u16>,
}

/// The names and ports of the origins; a port that is taken is replaced by a free one.
const ORIGINS: [(&str, u16); 3] = [("a", 9001), ("b", 9002), ("c", 9003)];
const CONTROL_PORT: u16 = 9000;

/// The addresses of one demo.
struct DemoAddresses {
    proxy: SocketAddr,
    admin: SocketAddr,
    control: SocketAddr,
}

pub(super) fn run(options: &DemoArgs) -> CommandResult {
    let origins: Vec<Arc<DemoOrigin>> = ORIGINS
        .iter()
        .map(|&(name, port)| {
            free_address(port).map(|address| Arc::new(DemoOrigin::new(name, address)))
        })
        .collect::<Result<_, _>>()?;
    let addresses = DemoAddresses {
        proxy: requested_or_free_address(options.port, 8080)?,
        admin: requested_or_free_address(options.admin_port, 9900)?,
        control: free_address(CONTROL_PORT)?,
    };
    let directory = create_directory()?;
    let file = directory.join("demo.yaml");
    let text = configuration(&addresses, &origins, &directory.join("control.sock"));
    std::fs::write(&file, &text)
        .map_err(|error| CliError::Input(format!("cannot write `{}`: {error}", file.display())))?;
    let config =
        config::parse("demo", &text).map_err(|report| CliError::Input(report.to_string()))?;
    telemetry::error_log::init(config.error_log);
    start_origins(origins.clone(), &addresses)?;
    print_instructions(&addresses, &origins, &file)?;
    let result = server::run(server::StartOptions {
        config,
        config_path: Some(file),
    });
    // If this fails, the system cleans up its directory for temporary files.
    let _ = std::fs::remove_dir_all(&directory);
    match result {
        Ok(_) => Ok(()),
        Err(error) => Err(CliError::Input(format!("error: {error}"))),
    }
}

/// Creates a directory for this demo. It must be new: in an existing one, another user could have placed files.
fn create_directory() -> Result<PathBuf, CliError> {
    let name = format!("clockwise-demo-{:08x}", rand::random::<u32>());
    let directory = std::env::temp_dir().join(name);
    std::fs::DirBuilder::new()
        .mode(0o700)
        .create(&directory)
        .map_err(|error| {
            CliError::Input(format!("cannot create `{}`: {error}", directory.display()))
        })?;
    Ok(directory)
}

/// Starts the origins on their own thread: like real origins, they share only the network with the proxy.
fn start_origins(origins: Vec<Arc<DemoOrigin>>, addresses: &DemoAddresses) -> CommandResult {
    let failed = |error: std::io::Error| {
        CliError::Input(format!("cannot start the demo's origins: {error}"))
    };
    let control_server = DemoControlServer {
        origins,
        proxy: addresses.proxy,
        admin: addresses.admin,
        address: addresses.control,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed)?;
    let serve = move || runtime.block_on(control_server.serve());
    std::thread::Builder::new()
        .name("origins".to_owned())
        .spawn(serve)
        .map_err(failed)?;
    Ok(())
}

/// The port that the user asked for, even if it is taken; otherwise the default one, or a free one.
fn requested_or_free_address(requested: Option<u16>, default: u16) -> Result<SocketAddr, CliError> {
    match requested {
        Some(port) => Ok((Ipv4Addr::LOCALHOST, port).into()),
        None => free_address(default),
    }
}

/// This port, or one that the kernel chooses if it is taken.
fn free_address(port: u16) -> Result<SocketAddr, CliError> {
    let bind = |port| {
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).and_then(|socket| socket.local_addr())
    };
    bind(port)
        .or_else(|_| bind(0))
        .map_err(|error| CliError::Input(format!("no free port on 127.0.0.1: {error}")))
}

fn configuration(addresses: &DemoAddresses, origins: &[Arc<DemoOrigin>], control: &Path) -> String {
    let peer = |origin: &Arc<DemoOrigin>| {
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
        proxy = addresses.proxy,
        admin = addresses.admin,
        control = control.display(),
    )
}

fn print_instructions(
    addresses: &DemoAddresses,
    origins: &[Arc<DemoOrigin>],
    file: &Path,
) -> CommandResult {
    let DemoAddresses {
        proxy,
        admin,
        control,
    } = addresses;
    let mut output = Output::stdout();
    output.line(&format!(
        "Clockwise listens on http://{proxy}/ in front of three origins:"
    ))?;
    for origin in origins {
        output.line(&format!("  {}  http://{}/", origin.name, origin.address))?;
    }
    output.line("")?;
    output.line("Same user, same origin, every time:")?;
    output.line(&format!("  curl 'http://{proxy}/?user=alice'"))?;
    output.line("Which origin has a key, and which one is next? The admin API answers:")?;
    output.line(&format!(
        "  curl 'http://{admin}/v1/upstreams/origins/owner?key=alice'"
    ))?;
    output.line("Stop an origin, and see that only its keys move; then start it again:")?;
    output.line(&format!(
        "  curl http://{control}/keys       # 1,000 keys through the proxy"
    ))?;
    output.line(&format!("  curl http://{control}/kill/b"))?;
    output.line(&format!(
        "  curl http://{control}/keys       # which keys moved since the last call"
    ))?;
    output.line(&format!(
        "  curl http://{control}/start/b    # answers when b has passed a health check"
    ))?;
    output.line(&format!(
        "  curl http://{control}/keys       # the same keys are back"
    ))?;
    output.line(&format!(
        "The dashboard: http://{admin}/ (metrics: http://{admin}/metrics)"
    ))?;
    let file = file.display();
    output.line(&format!(
        "Change the configuration in {file}, and reload it:"
    ))?;
    output.line(&format!("  clockwise reload --dry-run -c {file}"))?;
    output.line("Ctrl-C ends the demo.")?;
    output.flush()
}
