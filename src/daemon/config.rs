//! The daemon's configuration: a TOML file, environment variables over it, arguments over both.
//!
//! Each layer is a list of keys with values; the effective ones are the last said of each, and remember by whom.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::http::check_listen;
use super::{JOBS_MAX, LOG_KEEP_DAYS, Listen, Options, Tls, state_of};
use crate::adapter::postgres::POSTGRES_VARIABLE;
use crate::base::{Error, ErrorKind, Result};

const JOBS_LIMIT: usize = 64;

/// What a configuration file may say, and the same said by arguments. What is left out has its default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Configuration of stillpoint daemon")]
pub struct Config {
    /// The store's directory. Relative paths of a file begin at the file's folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<PathBuf>,
    /// Where all volumes are mounted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mount: Option<PathBuf>,
    /// Sockets, settings, secrets and logs of the servers; by default a folder of the store's own in
    /// /var/lib/stillpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<PathBuf>,
    /// IP address and port of the API on TCP, such as 127.0.0.1:7433; port 0 takes a free one. Without it the API is
    /// at the control socket only. An address that is not loopback needs TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub listen: Option<SocketAddr>,
    /// Certificate and key of the API on TCP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsConfig>,
    /// Jobs that run at a time; 4 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub jobs_max: Option<usize>,
    /// Days that jobs, their logs and events are kept; 90 by default. Of each, no more than 10,000 are.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub log_keep_days: Option<u32>,
    /// Folders of PostgreSQL installations beside those of the host's packages: each has bin/postgres, or holds folders
    /// that have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub postgres: Option<Vec<PathBuf>>,
    /// Whether staging servers and VDBs go on when the daemon ends: the store is then mounted by a process of its own, which
    /// the next daemon finds. Without it they stop, and start with the next daemon.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_servers: Option<bool>,
}

/// PEM files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// The certificate, followed by those that lead from it to a known one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// The private key; not readable by others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
}

/// Every key, in the order of the file, with its environment variable.
pub const KEYS: [(&str, &str); 10] = [
    ("store", "STILLPOINT_STORE"),
    ("mount", "STILLPOINT_MOUNT"),
    ("state", "STILLPOINT_STATE"),
    ("listen", "STILLPOINT_LISTEN"),
    ("tls.certificate", "STILLPOINT_TLS_CERTIFICATE"),
    ("tls.key", "STILLPOINT_TLS_KEY"),
    ("jobs_max", "STILLPOINT_JOBS_MAX"),
    ("log_keep_days", "STILLPOINT_LOG_KEEP_DAYS"),
    ("postgres", POSTGRES_VARIABLE),
    ("keep_servers", "STILLPOINT_KEEP_SERVERS"),
];

/// Reads a file. Errors name line and column.
pub fn read(path: &Path) -> Result<Config> {
    let shown = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|e| Error::io("read", &shown, e))?;
    let mut config = parse(&text).map_err(|e| e.context(&shown))?;
    let path = std::path::absolute(path).map_err(|e| Error::io("resolve", &shown, e))?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    let Config { store, mount, state, tls, postgres, .. } = &mut config;
    let tls = tls.iter_mut().flat_map(|tls| [&mut tls.certificate, &mut tls.key]);
    let folders = postgres.iter_mut().flatten();
    for path in [store, mount, state].into_iter().chain(tls).flatten().chain(folders) {
        *path = folder.join(&*path);
    }
    Ok(config)
}

fn parse(text: &str) -> Result<Config> {
    toml::from_str(text).map_err(|e| {
        let known: Vec<&str> = KEYS.iter().map(|(key, _)| *key).collect();
        Error::invalid(e.to_string().trim_end().to_owned())
            .with_hint(format!("the keys are {}; see docs/config.schema.json", known.join(", ")))
    })
}

/// What the environment says; `variable` is `std::env::var_os`.
pub fn from_environment(variable: impl Fn(&str) -> Option<OsString>) -> Result<Config> {
    let text = |name: &str| -> Result<Option<String>> {
        let Some(value) = variable(name).filter(|value| !value.is_empty()) else { return Ok(None) };
        let value = value.into_string().map_err(|_| Error::invalid(format!("{name} is no text")))?;
        Ok(Some(value))
    };
    let path = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let (certificate, key) = (path("STILLPOINT_TLS_CERTIFICATE"), path("STILLPOINT_TLS_KEY"));
    Ok(Config {
        store: path("STILLPOINT_STORE"),
        mount: path("STILLPOINT_MOUNT"),
        state: path("STILLPOINT_STATE"),
        listen: read_as("STILLPOINT_LISTEN", text("STILLPOINT_LISTEN")?)?,
        tls: (certificate.is_some() || key.is_some()).then_some(TlsConfig { certificate, key }),
        jobs_max: read_as("STILLPOINT_JOBS_MAX", text("STILLPOINT_JOBS_MAX")?)?,
        log_keep_days: read_as("STILLPOINT_LOG_KEEP_DAYS", text("STILLPOINT_LOG_KEEP_DAYS")?)?,
        postgres: variable(POSTGRES_VARIABLE)
            .filter(|value| !value.is_empty())
            .map(|folders| std::env::split_paths(&folders).collect()),
        keep_servers: read_as("STILLPOINT_KEEP_SERVERS", text("STILLPOINT_KEEP_SERVERS")?)?,
    })
}

fn read_as<T: std::str::FromStr>(name: &str, text: Option<String>) -> Result<Option<T>>
where
    T::Err: std::fmt::Display,
{
    text.map(|text| text.parse().map_err(|e| Error::invalid(format!("{name}={text}: {e}")))).transpose()
}

/// A value and who said it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Setting {
    pub key: &'static str,
    /// Absent when nobody said it and it has no default.
    pub value: Option<String>,
    /// `argument`, `environment STILLPOINT_…`, the file's path, or `default`.
    pub from: String,
}

/// Layers, the strongest last.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    layers: Vec<(Source, Config)>,
}

/// Who says something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    File(PathBuf),
    Environment,
    Arguments,
}

impl Layers {
    /// The layers of a process: the file, if one is named, the environment, and its arguments.
    pub fn of(file: Option<&Path>, arguments: Config) -> Result<Self> {
        let mut layers = Vec::new();
        if let Some(file) = file {
            layers.push((Source::File(file.to_owned()), read(file)?));
        }
        layers.push((Source::Environment, from_environment(|name| std::env::var_os(name))?));
        layers.push((Source::Arguments, arguments));
        Ok(Self { layers })
    }

    /// What goes for the daemon.
    pub fn effective(&self) -> Config {
        let mut all = Config::default();
        for (_, layer) in &self.layers {
            let Config { store, mount, state, listen, tls, jobs_max, log_keep_days, postgres, keep_servers } =
                layer.clone();
            all.store = store.or(all.store);
            all.mount = mount.or(all.mount);
            all.state = state.or(all.state);
            all.listen = listen.or(all.listen);
            let (before, tls) = (all.tls.unwrap_or_default(), tls.unwrap_or_default());
            let (certificate, key) = (tls.certificate.or(before.certificate), tls.key.or(before.key));
            all.tls = (certificate.is_some() || key.is_some()).then_some(TlsConfig { certificate, key });
            all.jobs_max = jobs_max.or(all.jobs_max);
            all.log_keep_days = log_keep_days.or(all.log_keep_days);
            all.postgres = postgres.or(all.postgres);
            all.keep_servers = keep_servers.or(all.keep_servers);
        }
        all
    }

    /// Every key with what goes for it, and who said so.
    pub fn settings(&self) -> Vec<Setting> {
        let said: Vec<_> = self.layers.iter().rev().map(|(source, layer)| (source, values(layer))).collect();
        let defaults = defaults(&self.effective());
        let setting = |(key, variable): &(&'static str, &'static str)| {
            for (source, values) in &said {
                if let Some(value) = values.get(*key) {
                    let from = match source {
                        Source::File(path) => path.display().to_string(),
                        Source::Environment => format!("environment {variable}"),
                        Source::Arguments => "argument".into(),
                    };
                    return Setting { key, value: Some(value.clone()), from };
                }
            }
            let value = defaults.get(*key).cloned();
            let from = if value.is_some() { "default" } else { "-" };
            Setting { key, value, from: from.into() }
        };
        KEYS.iter().map(setting).collect()
    }
}

/// The keys that a layer says, as text.
fn values(config: &Config) -> BTreeMap<String, String> {
    fn walk(prefix: &str, value: &Value, found: &mut BTreeMap<String, String>) {
        match value {
            Value::Object(map) => {
                for (name, value) in map {
                    let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                    walk(&key, value, found);
                }
            }
            Value::Null => {}
            Value::String(text) => drop(found.insert(prefix.to_owned(), text.clone())),
            other => drop(found.insert(prefix.to_owned(), other.to_string())),
        }
    }
    let mut found = BTreeMap::new();
    // A path that is no text is shown as far as it is one by `check`, which refuses it.
    walk("", &serde_json::to_value(config).unwrap_or(Value::Null), &mut found);
    found
}

fn defaults(config: &Config) -> BTreeMap<&'static str, String> {
    let mut defaults = BTreeMap::from([
        ("jobs_max", JOBS_MAX.to_string()),
        ("log_keep_days", LOG_KEEP_DAYS.to_string()),
        ("keep_servers", false.to_string()),
    ]);
    let store = config.store.as_ref().map(|store| store.canonicalize().unwrap_or_else(|_| store.clone()));
    if let Some(store) = store {
        defaults.insert("state", state_of(&store).display().to_string());
    }
    defaults
}

impl Config {
    /// Refuses what cannot go together or is out of its range, whether or not all is said that a daemon needs.
    pub fn check(&self) -> Result<()> {
        if let Some(tls) = &self.tls
            && (tls.certificate.is_none() || tls.key.is_none())
        {
            return Err(Error::invalid("tls.certificate and tls.key go together: one of them is missing"));
        }
        if let Some(address) = self.listen {
            check_listen(address, self.tls()?.as_ref())?;
        }
        if self.jobs_max.is_some_and(|count| !(1..=JOBS_LIMIT).contains(&count)) {
            return Err(Error::invalid(format!("jobs_max is from 1 to {JOBS_LIMIT}")));
        }
        if self.log_keep_days == Some(0) {
            return Err(Error::invalid("log_keep_days is at least 1"));
        }
        Ok(())
    }

    fn tls(&self) -> Result<Option<Tls>> {
        match self.tls.clone().unwrap_or_default() {
            TlsConfig { certificate: None, key: None } => Ok(None),
            TlsConfig { certificate: Some(certificate), key: Some(key) } => {
                Ok(Some(Tls { certificate, key }))
            }
            _ => Err(Error::invalid("tls.certificate and tls.key go together: one of them is missing")),
        }
    }

    /// What a daemon is run with.
    pub fn options(&self) -> Result<Options> {
        self.check()?;
        let needed = |value: &Option<PathBuf>, key: &str, argument: &str| {
            value.clone().ok_or_else(|| {
                Error::new(ErrorKind::Invalid, format!("no {key} was named"))
                    .with_hint(format!("add {argument}, or `{key}` to the file of --config"))
            })
        };
        let tls = self.tls()?;
        Ok(Options {
            store: needed(&self.store, "store", "--store STORE")?,
            mount: needed(&self.mount, "mount", "--mount DIR")?,
            state: self.state.clone(),
            writethrough: false,
            listen: self.listen.map(|address| Listen { address, tls }),
            jobs_max: self.jobs_max.unwrap_or(JOBS_MAX),
            log_keep_days: self.log_keep_days.unwrap_or(LOG_KEEP_DAYS),
            postgres: self.postgres.clone().unwrap_or_default(),
            keep_servers: self.keep_servers.unwrap_or(false),
        })
    }
}

/// The JSON schema of a configuration file, as it is committed.
pub fn schema_text() -> String {
    let schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<Config>();
    let mut text = format!("{:#}", schema.to_value());
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_and_wrong_values_are_refused_with_their_line() {
        for (text, words) in [
            ("store = \"/s\"\nmuont = \"/m\"\n", &["line 2", "muont"][..]),
            ("jobs_max = 2\n[tls]\nkye = \"/k\"\n", &["line 3", "kye"]),
            ("jobs_max = \"many\"\n", &["line 1", "many"]),
            ("\n\nlisten = \"localhost\"\n", &["line 3", "socket address"]),
            ("store = \n", &["line 1"]),
        ] {
            let error = parse(text).unwrap_err();
            for word in words {
                assert!(error.message().contains(word), "{text:?}: {error}");
            }
            assert!(error.hint().unwrap().contains("log_keep_days"));
        }
    }

    #[test]
    fn the_last_layer_goes_and_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("stillpoint.toml");
        std::fs::write(
            &file,
            "store = \"s\"\nmount = \"/m\"\njobs_max = 2\n[tls]\ncertificate = \"c.pem\"\n",
        )
        .unwrap();
        let environment = from_environment(|name| match name {
            "STILLPOINT_JOBS_MAX" => Some("3".into()),
            "STILLPOINT_TLS_KEY" => Some("/k.pem".into()),
            POSTGRES_VARIABLE => Some("/p:/q".into()),
            _ => None,
        });
        let layers = Layers {
            layers: vec![
                (Source::File(file.clone()), read(&file).unwrap()),
                (Source::Environment, environment.unwrap()),
                (Source::Arguments, Config { mount: Some("/other".into()), ..Config::default() }),
            ],
        };
        let config = layers.effective();
        assert_eq!(config.store.as_deref(), Some(&*folder.path().join("s")));
        let options = config.options().unwrap();
        assert_eq!((options.mount, options.jobs_max), (PathBuf::from("/other"), 3));
        assert_eq!(options.postgres, [PathBuf::from("/p"), PathBuf::from("/q")]);
        let from = |key: &str| layers.settings().into_iter().find(|setting| setting.key == key).unwrap();
        assert_eq!(from("store").from, file.display().to_string());
        assert_eq!(from("mount").from, "argument");
        assert_eq!(from("jobs_max").from, "environment STILLPOINT_JOBS_MAX");
        assert_eq!(from("tls.key").value.as_deref(), Some("/k.pem"));
        assert_eq!(from("log_keep_days").from, "default");
        assert_eq!(from("listen"), Setting { key: "listen", value: None, from: "-".into() });
        let wrong = from_environment(|name| (name == "STILLPOINT_JOBS_MAX").then(|| "x".into())).unwrap_err();
        assert!(wrong.message().contains("STILLPOINT_JOBS_MAX=x"), "{wrong}");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for text in [
            "jobs_max = 0",
            "jobs_max = 65",
            "log_keep_days = 0",
            "listen = \"0.0.0.0:1\"",
            "[tls]\nkey = \"k\"",
        ] {
            assert!(parse(text).unwrap().check().is_err(), "{text}");
        }
        assert!(Config::default().options().unwrap_err().message().contains("store"));
    }

    #[test]
    fn keys_are_the_configs() {
        let tls = Some(TlsConfig { certificate: Some("c".into()), key: Some("k".into()) });
        let full = Config {
            store: Some("s".into()),
            mount: Some("m".into()),
            state: Some("t".into()),
            listen: Some(([127, 0, 0, 1], 1).into()),
            tls,
            jobs_max: Some(1),
            log_keep_days: Some(1),
            postgres: Some(vec!["p".into()]),
            keep_servers: Some(true),
        };
        let mut keys: Vec<&str> = KEYS.iter().map(|(key, _)| *key).collect();
        keys.sort_unstable();
        assert_eq!(Vec::from_iter(values(&full).keys().map(String::as_str)), keys);
    }

    #[test]
    fn the_committed_schema_is_current() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/config.schema.json");
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            committed == schema_text(),
            "docs/config.schema.json is not what the code says: run `cargo run -- config schema > docs/config.schema.json`"
        );
    }
}
