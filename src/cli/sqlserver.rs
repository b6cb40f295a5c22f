//! The words of `stillpoint dsource link sqlserver`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::dsource::{PASSWORD_VARIABLE, absolute, password};
use super::exit::Result;
use super::hook::Attached;
use crate::api::{Link, default_group};

#[derive(Args)]
pub(super) struct SqlServer {
    /// The dSource's name
    #[arg(long)]
    name: String,
    /// The group whose permissions it shares
    #[arg(long, default_value_t = default_group())]
    group: String,
    /// You keep the staging database in sync: restore into it by hand, or in a pre_sync hook
    #[arg(long, required_unless_present = "backup_path", conflicts_with_all = ["backup_path", "source_database"])]
    staging_push: bool,
    /// The engine keeps it in sync: it restores the full, differential and log backups that come into this folder
    #[arg(long, value_name = "DIR")]
    backup_path: Option<PathBuf>,
    /// Whose backups, when the folder has those of several databases
    #[arg(long, value_name = "DATABASE")]
    source_database: Option<String>,
    /// The staging database, which is made on the instance; of a link to a folder NAME_staging if not told
    #[arg(long, value_name = "DATABASE", required_unless_present = "backup_path")]
    staging_database: Option<String>,
    /// Keep no log backups: no points in time between snapshots
    #[arg(long)]
    no_logs: bool,
    #[command(flatten)]
    at: AtInstance,
    #[command(flatten)]
    attached: Attached,
    /// Ask the instance, print what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Return when the job is accepted
    #[arg(long)]
    pub no_wait: bool,
}

/// An instance of SQL Server, and who asks it.
#[derive(Args)]
pub(super) struct AtInstance {
    #[arg(long, value_name = "HOST", default_value = "127.0.0.1")]
    instance_host: String,
    /// Where the instance listens; 1433 if neither this nor a name is given
    #[arg(long, value_name = "PORT", conflicts_with = "instance_name")]
    instance_port: Option<u16>,
    /// A named instance, whose port SQL Server Browser tells
    #[arg(long, value_name = "NAME")]
    instance_name: Option<String>,
    /// The SQL Server login that is used
    #[arg(long, value_name = "LOGIN")]
    login: String,
    /// The file that holds its password; else the environment variable STILLPOINT_SOURCE_PASSWORD is taken
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Whether the server proves who it is, any certificate is taken, or only the login is encrypted
    #[arg(long, value_name = "MODE", default_value = "verified", value_parser = ["verified", "unverified", "login-only"])]
    encryption: String,
    /// The certificates of the authorities that vouch for the server, in PEM; else those of the host
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The user of this host that the instance runs as
    #[arg(long, value_name = "USER", default_value = "mssql")]
    pub user: String,
}

impl AtInstance {
    /// The password, when one was told.
    pub(super) fn secrets(&self) -> Result<BTreeMap<String, String>> {
        let mut secrets = BTreeMap::new();
        if let Some(password) = password(self.password_file.as_deref(), PASSWORD_VARIABLE)? {
            secrets.insert("source_password".to_owned(), password);
        }
        Ok(secrets)
    }

    /// The rest, as the adapter is told.
    pub(super) fn parameters(&self) -> Result<Value> {
        Ok(json!({
            "host": self.instance_host,
            "port": self.instance_port,
            "instance": self.instance_name,
            "user": self.login,
            "encryption": self.encryption,
            "ca": absolute(&self.ca)?,
        }))
    }
}

impl SqlServer {
    /// What the engine is asked for.
    pub(super) fn request(self) -> Result<Link> {
        Ok(Link {
            name: self.name,
            group: self.group,
            adapter: "sqlserver".into(),
            port: None,
            source: None,
            parameters: json!({
                "staging_push": self.staging_push,
                "backup_path": absolute(&self.backup_path)?,
                "source_database": self.source_database,
                "database": self.staging_database,
                "user": self.at.user,
                "instance": self.at.parameters()?,
            }),
            secrets: self.at.secrets()?,
            logs: !self.no_logs,
            images: false,
            policies: self.attached.policies.clone(),
            mount_base: self.attached.mount_base()?,
            hooks: self.attached.hooks()?,
        })
    }
}
