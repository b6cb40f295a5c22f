//! The settings files of a server of ours. They lie in its state folder, outside every snapshot; what the source had
//! is not used.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::config::Config;
use super::files::{Readers, make_folder, write_state};
use super::logs;
use super::server::Server;
use crate::base::{Error, ErrorKind, OsUser, Result};

/// Settings that the engine decides. A user's setting of one of them is refused.
const OURS: [&str; 37] = [
    "config_file",
    "data_directory",
    "hba_file",
    "ident_file",
    "external_pid_file",
    "include",
    "include_dir",
    "include_if_exists",
    "promote_trigger_file",
    "trigger_file",
    "port",
    "unix_socket_directories",
    "unix_socket_permissions",
    "archive_mode",
    "archive_command",
    "archive_library",
    "archive_cleanup_command",
    "recovery_end_command",
    "ssl_passphrase_command",
    "ssl_passphrase_command_supports_reload",
    "dynamic_library_path",
    "jit_provider",
    "restore_command",
    "recovery_target",
    "recovery_target_action",
    "recovery_target_inclusive",
    "recovery_target_lsn",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_timeline",
    "recovery_target_xid",
    "primary_conninfo",
    "primary_slot_name",
    "hot_standby",
    "logging_collector",
    "log_destination",
    "fsync",
];

/// What a server's settings are made of beside its configuration.
pub(super) struct Purpose {
    /// Settings of recovery: where to follow, how far to go.
    pub recovery: BTreeMap<String, String>,
    /// Whether it must not have its limits below the source's.
    pub keep_limits: bool,
    /// Whether it still is what its parent was: nothing in it may act outward, whatever the user's settings say.
    pub closed: bool,
}

/// Refuses a user's setting that would take the server out of the engine's hands.
pub(super) fn check_settings(settings: &BTreeMap<String, String>) -> Result<()> {
    for (name, value) in settings {
        let plain = !name.is_empty()
            && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.'))
            && !value.contains(['\n', '\r', '\0']);
        if !plain {
            return Err(Error::invalid(format!(
                "{name:?} is not the name of a setting, or its value has line ends"
            )));
        }
        if name.to_ascii_lowercase().ends_with("preload_libraries") && value.contains('/') {
            return Err(Error::invalid(format!(
                "{name} names a file of the host: only libraries of the installation can be loaded, without a path"
            )));
        }
        if OURS.contains(&name.to_ascii_lowercase().as_str()) {
            return Err(Error::invalid(format!(
                "the setting {name} is the engine's to decide: leave it out"
            )));
        }
    }
    Ok(())
}

/// Writes all three files.
pub(super) fn write(server: &Server<'_>, purpose: &Purpose) -> Result<()> {
    let user = &server.programs.user;
    make_state_folder(server)?;
    let archive = logs::archive_command(server)?;
    let settings = settings(&server.config, purpose, archive.as_deref());
    let write = |name: &str, text: &str| write_state(&server.state_file(name), text, user, Readers::Group);
    write("postgresql.conf", &render(&settings))?;
    write("pg_hba.conf", &access(&server.config))?;
    write("pg_ident.conf", &identities(&server.config, user))
}

/// The state folder, root's, and the one for sockets in it, the server's.
pub(super) fn make_state_folder(server: &Server<'_>) -> Result<()> {
    let user = &server.programs.user;
    make_folder(&server.instance.state, user, Readers::Group)?;
    make_folder(&server.sockets(), user, Readers::User)
}

fn settings(config: &Config, purpose: &Purpose, archive: Option<&str>) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut set = |name: &str, value: &str| all.insert(name.to_owned(), value.to_owned());
    set("listen_addresses", "127.0.0.1");
    set("shared_buffers", "64MB");
    set("huge_pages", "off");
    set("max_logical_replication_workers", "0");
    set("max_wal_size", "512MB");
    set("wal_init_zero", "off");
    set("wal_recycle", "off");
    if config.major >= 14 {
        set("recovery_init_sync_method", "syncfs");
    }
    for (name, value) in &config.settings {
        set(name, value);
    }
    for (name, least) in &config.limits {
        let asked = config.settings.get(name).and_then(|value| value.parse::<u64>().ok());
        let value = match asked {
            Some(asked) if !purpose.keep_limits => asked,
            Some(asked) => asked.max(*least),
            None => *least,
        };
        set(name, &value.to_string());
    }
    for (name, value) in &purpose.recovery {
        set(name, value);
    }
    if purpose.closed {
        set("max_logical_replication_workers", "0");
        set("shared_preload_libraries", "");
    }
    set("unix_socket_permissions", "0700");
    let received = if config.is_staging() { "always" } else { "on" };
    set("archive_mode", archive.map_or("off", |_| received));
    set("archive_command", archive.unwrap_or_default());
    set("logging_collector", "off");
    set("log_destination", "stderr");
    set("log_line_prefix", "%m [%p] ");
    all
}

fn render(settings: &BTreeMap<String, String>) -> String {
    let mut text = String::from("# Written by stillpoint at each start: changes here do not stay.\n");
    for (name, value) in settings {
        let value = value.replace('\'', "''");
        let _ = writeln!(text, "{name} = '{value}'");
    }
    text
}

/// Over our socket only the engine's users, as who they are; over the network only with a password.
fn access(config: &Config) -> String {
    // `md5` takes what is stored either way, as a SCRAM secret or as an MD5 hash.
    format!(
        "# Written by stillpoint at each start: changes here do not stay.\n\
         local all \"{}\" peer map=stillpoint\n\
         host all all 127.0.0.1/32 md5\n\
         host all all ::1/128 md5\n",
        config.superuser.replace('"', "\"\"")
    )
}

fn identities(config: &Config, user: &OsUser) -> String {
    let role = config.superuser.replace('"', "\"\"");
    // Servers of one user could otherwise let each other in.
    let engine = if rustix::process::geteuid().is_root() { "root" } else { &user.name };
    format!("stillpoint \"{engine}\" \"{role}\"\n")
}

/// Refuses a port that something listens at, and says so.
pub(super) fn check_port(port: u16) -> Result<()> {
    match std::net::TcpListener::bind(("127.0.0.1", port)) {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::AddrInUse => Err(Error::new(
            ErrorKind::InUse,
            format!(
                "something listens at port {port} already: choose another port, or see who with `ss -ltnp`"
            ),
        )),
        Err(e) => Err(Error::io("listen at", &format!("port {port}"), e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_are_not_the_users_are_refused() {
        let one = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
        assert!(check_settings(&one("work_mem", "4MB")).is_ok());
        assert!(check_settings(&one("Restore_Command", "true")).is_err());
        assert!(check_settings(&one("work_mem", "4MB'\nfsync='off")).is_err());
        assert!(check_settings(&one("a b", "1")).is_err());
        assert!(check_settings(&one("recovery_end_command", "true")).is_err());
        assert!(check_settings(&one("shared_preload_libraries", "pg_stat_statements")).is_ok());
        assert!(check_settings(&one("session_preload_libraries", "/tmp/x.so")).is_err());
    }

    #[test]
    fn values_are_quoted() {
        let text = render(&BTreeMap::from([("a".to_owned(), "it's".to_owned())]));
        assert!(text.ends_with("a = 'it''s'\n"));
    }
}
