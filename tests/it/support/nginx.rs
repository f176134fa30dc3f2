//! Real nginx origins: one process each, answering every request with its own name.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::port::{self, ClosedPort};
use super::process::Process;

/// One nginx. While it is down its port stays reserved and refuses connects.
pub(crate) struct Nginx {
    pub(crate) address: SocketAddr,
    process: Option<Process>,
    held: Option<ClosedPort>,
    directory: TempDir,
}

impl Nginx {
    /// Starts nginx, which responds with its own address, its default label. Panics if nginx is not
    /// installed: tests are never skipped (`tests/install.sh` installs it).
    pub(crate) fn start() -> Self {
        let address = port::free();
        Self::on(
            address,
            "",
            &format!("location / {{ return 200 \"{address}\"; }}"),
        )
    }

    /// Starts nginx with these parameters of `listen` and these directives of `server`.
    pub(crate) fn serving(listen: &str, server: &str) -> Self {
        Self::on(port::free(), listen, server)
    }

    fn on(address: SocketAddr, listen: &str, server: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let server = format!("listen {address} {listen}; {server}");
        let conf = configuration(&server, directory.path());
        fs::write(directory.path().join("nginx.conf"), conf).expect("writable");
        let process = Some(launch(address, directory.path()));
        Self {
            address,
            process,
            held: None,
            directory,
        }
    }

    pub(crate) fn three() -> [Self; 3] {
        [(); 3].map(|()| Self::start())
    }

    /// The default label: the address.
    pub(crate) fn label(&self) -> String {
        self.address.to_string()
    }

    /// SIGKILL: open connections are reset, new ones are refused.
    pub(crate) fn kill(&mut self) {
        self.process = None;
        self.held = Some(ClosedPort::hold(self.address));
    }

    /// Starts it again on the same port.
    pub(crate) fn restart(&mut self) {
        self.held = None;
        self.process = Some(launch(self.address, self.directory.path()));
    }
}

fn launch(address: SocketAddr, directory: &Path) -> Process {
    let mut command = Command::new("nginx");
    command
        .arg("-p")
        .arg(directory)
        .args(["-c", "nginx.conf", "-e", "stderr"]);
    // Debian installs it outside an ordinary user's PATH.
    command.env(
        "PATH",
        "/usr/sbin:/usr/local/sbin:/usr/bin:/bin:/usr/local/bin",
    );
    Process::listening("nginx", &mut command, address)
}

/// One process without a master, so that SIGKILL ends all of nginx.
fn configuration(server: &str, directory: &Path) -> String {
    let temp = directory.display();
    format!(
        r"
daemon off;
master_process off;
pid {temp}/pid;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    keepalive_requests 10000000;
    client_max_body_size 0;
    client_body_temp_path {temp}/body;
    proxy_temp_path {temp}/proxy;
    fastcgi_temp_path {temp}/fastcgi;
    uwsgi_temp_path {temp}/uwsgi;
    scgi_temp_path {temp}/scgi;
    server {{ {server} }}
}}
"
    )
}
