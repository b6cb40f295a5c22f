//! The words of `stillpoint dsource link command`: an application, and the commands that handle it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Map, Value, json};

use super::dsource::parse_setting;
use super::exit::Result;
use super::hook::Attached;
use crate::api::{Link, default_group};
use crate::base::Error;

/// An application's commands. When they are changed, those that are not named stay, and an empty one is taken away.
#[derive(Args)]
pub(super) struct Commands {
    /// Of an application: holds its files as they are, and returns when they are
    #[arg(long, value_name = "COMMAND")]
    quiesce: Option<String>,
    /// Lets it go on; runs after every quiesce, also after a failed one
    #[arg(long, value_name = "COMMAND")]
    thaw: Option<String>,
    /// Starts it in the background, in a session of its own
    #[arg(long, value_name = "COMMAND")]
    start: Option<String>,
    /// Stops it
    #[arg(long, value_name = "COMMAND")]
    stop: Option<String>,
    /// Ends with 0 if it runs
    #[arg(long, value_name = "COMMAND")]
    status: Option<String>,
    /// Makes a clone's files an application of its own, before its first start
    #[arg(long, value_name = "COMMAND")]
    configure: Option<String>,
    /// How long a command may run before it is ended
    #[arg(long, value_name = "SECONDS")]
    time_limit: Option<u32>,
}

#[derive(Args)]
#[command(mut_arg("quiesce", |argument| argument.required(true)), mut_arg("thaw", |argument| argument.required(true)))]
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
    #[command(flatten)]
    commands: Commands,
    /// A folder whose content is copied into the volume, as the user
    #[arg(long, value_name = "FOLDER")]
    from: Option<PathBuf>,
    /// Where it listens; a free number is kept for it when left out
    #[arg(long)]
    port: Option<u16>,
    /// A variable for its commands
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = parse_setting)]
    settings: Vec<(String, String)>,
    #[command(flatten)]
    attached: Attached,
    /// Print what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Return when the job is accepted
    #[arg(long)]
    pub no_wait: bool,
}

impl Commands {
    fn texts(self) -> Map<String, Value> {
        let texts = [
            ("quiesce", self.quiesce),
            ("thaw", self.thaw),
            ("start", self.start),
            ("stop", self.stop),
            ("status", self.status),
            ("configure", self.configure),
        ];
        texts.into_iter().filter_map(|(name, text)| Some((name.to_owned(), Value::from(text?)))).collect()
    }

    /// What of them is to change, by the names of a change's parameters.
    pub(super) fn changes(self) -> Map<String, Value> {
        let mut changes = Map::new();
        if let Some(seconds) = self.time_limit {
            changes.insert("time_limit_seconds".into(), seconds.into());
        }
        let texts = self.texts();
        if !texts.is_empty() {
            changes.insert("commands".into(), Value::Object(texts));
        }
        changes
    }
}

impl Application {
    /// What the engine is asked for.
    pub(super) fn request(self) -> Result<Link> {
        // The daemon has another working directory.
        let from = self.from.as_deref().map(std::path::absolute).transpose();
        let from = from.map_err(|e| Error::io("resolve", "a path", e))?;
        let settings: BTreeMap<String, String> = self.settings.into_iter().collect();
        Ok(Link {
            name: self.name,
            group: self.group,
            adapter: "command".into(),
            source: None,
            port: self.port,
            parameters: json!({
                "user": self.user,
                "time_limit_seconds": self.commands.time_limit,
                "commands": self.commands.texts(),
                "from": from,
                "settings": settings,
            }),
            secrets: BTreeMap::new(),
            logs: false,
            images: false,
            mount_base: self.attached.mount_base()?,
            hooks: self.attached.hooks()?,
            policies: self.attached.policies,
        })
    }
}
