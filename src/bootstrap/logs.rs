//! The logs that the settings name: opened in the master, which may still write where the workers'
//! user may not.

use crate::logging::{self, AccessFormat, AccessLog, LogSettings, SyslogSettings};
use crate::python::hooks::Hooks;
use crate::python::loggers;
use crate::service;
use crate::settings::Config;

/// Points the error log to where `config` says, and makes the logger that its `hooks` are given.
///
/// # Errors
/// The sentence for the user.
pub fn configure_logging(config: &Config, hooks: &Hooks) -> Result<(), String> {
    let settings = LogSettings {
        errorlog: config.log_target(&config.errorlog),
        level: config.loglevel.clone(),
        json: loggers::schema(config.log_format),
        syslog: config.sends_to_syslog().then(|| syslog_settings(config)),
        capture_output: config.capture_output,
        owner: log_owner(config)?,
    };
    logging::init(&settings).map_err(|error| format!("Error: {error}"))?;
    hooks.open_log(config).map_err(|error| format!("Error: {error}"))
}

/// Makes sure that the workers will be able to write the access log: creates it, and gives it to
/// their user.
///
/// # Errors
/// The sentence for the user.
pub fn check_access_log(config: &Config) -> Result<(), String> {
    let Some(target) = &config.accesslog else { return Ok(()) };
    AccessLog::open(&config.log_target(target), AccessFormat::compile(""), log_owner(config)?)
        .map(|_| ())
        .map_err(|error| format!("Error: {error}"))
}

fn syslog_settings(config: &Config) -> SyslogSettings {
    SyslogSettings {
        address: config.syslog_addr.clone(),
        facility: config.syslog_facility.clone(),
        name: config.syslog_prefix.clone().unwrap_or_else(|| config.name().to_owned()),
        takes_access_lines: !config.disable_redirect_access_to_syslog,
    }
}

fn log_owner(config: &Config) -> Result<Option<(u32, u32)>, String> {
    if config.user.is_none() && config.group.is_none() {
        return Ok(None);
    }
    service::identity(config).map(Some).map_err(|error| format!("Error: {error}"))
}
