//! The words of `stillpoint dsource link command`: an application, and the commands that handle it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Map, Value, json};

use super::dsource::parse_setting;
use super::exit::Result;
use crate::api::{Link, default_group};
use crate::base::Error;

#[derive(Args)]
pub(super) struct Application {
    /// The dSource's name
    #[arg(long)]
    name: String,
    /// The group whose permissions it shares
    #[arg(long, default_value_t = default_group())]
    group: String,
    /// The user that owns the files and that commands run as; not root
    #[arg(long)]
    user: String,
    /// Holds the application's files as they are, and returns when they are
    #[arg(long, value_name = "COMMAND")]
    quiesce: String,
    /// Lets it go on; runs after every quiesce, also after a failed one
    #[arg(long, value_name = "COMMAND")]
    thaw: String,
    /// Starts it in the background, in a session of its own
    #[arg(long, value_name = "COMMAND", requires = "stop")]
    start: Option<String>,
    /// Stops it
    #[arg(long, value_name = "COMMAND", requires = "start")]
    stop: Option<String>,
    /// Ends with 0 if it runs
    #[arg(long, value_name = "COMMAND")]
    status: Option<String>,
    /// Makes a clone's files an application of its own, before its first start
    #[arg(long, value_name = "COMMAND")]
    configure: Option<String>,
    /// A folder whose content is copied into the volume, as the user
    #[arg(long, value_name = "FOLDER")]
    from: Option<PathBuf>,
    /// How long a command may run before it is ended
    #[arg(long, value_name = "SECONDS")]
    time_limit: Option<u32>,
    /// Where it listens; a free number is kept for it when left out
    #[arg(long)]
    port: Option<u16>,
    /// A variable for its commands
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = parse_setting)]
    settings: Vec<(String, String)>,
    /// Print what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Return when the job is accepted
    #[arg(long)]
    pub no_wait: bool,
}

impl Application {
    /// What the engine is asked for.
    pub(super) fn request(self) -> Result<Link> {
        // The daemon has another working directory.
        let from = self.from.as_deref().map(std::path::absolute).transpose();
        let from = from.map_err(|e| Error::io("resolve", "a path", e))?;
        let texts = [
            ("quiesce", Some(self.quiesce)),
            ("thaw", Some(self.thaw)),
            ("start", self.start),
            ("stop", self.stop),
            ("status", self.status),
            ("configure", self.configure),
        ];
        let commands: Map<String, Value> = texts
            .into_iter()
            .filter_map(|(name, text)| Some((name.to_owned(), Value::from(text?))))
            .collect();
        let settings: BTreeMap<String, String> = self.settings.into_iter().collect();
        Ok(Link {
            name: self.name,
            group: self.group,
            adapter: "command".into(),
            port: self.port,
            parameters: json!({
                "user": self.user,
                "commands": commands,
                "from": from,
                "time_limit_seconds": self.time_limit,
                "settings": settings,
            }),
            secrets: BTreeMap::new(),
            logs: false,
            images: false,
        })
    }
}
