//! `clockwise run`

use super::{ConfigFile, Done, Failure};
use crate::{server, telemetry};

pub(super) fn run(config: &ConfigFile) -> Done {
    let source = Some(config.path());
    let config = config.load()?;
    telemetry::log::init(config.error_log);
    match server::run(server::Launch { config, source }) {
        Ok(_) => Ok(()),
        Err(error) => Err(Failure::Input(format!("error: {error}"))),
    }
}
