//! `stillpoint daemon`: the process that holds the store, mounts it, and runs its datasets.

use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Args;
use serde::Serialize;

use super::config::said_by_arguments;
use super::context::{Context, environment};
use super::exit::{Failure, Outcome, Result};
use super::mount::{announce, launch, mount_apart};
use super::mountinfo::resolve;
use super::output::{Show, Table};
use super::signals::ending_signals;
use super::volume::unexpected;
use crate::base::{Error, ErrorKind};
use crate::control::{Client, Message, Operations, Reply, Request, SOCKET_NAME};
use crate::daemon::config::{Config, Layers, TlsConfig};
use crate::daemon::{Daemon, Options};

#[derive(Args)]
pub(super) struct Arguments {
    /// A file that says what is not said here: see `stillpoint config`
    #[arg(long, value_name = "FILE", env = "STILLPOINT_CONFIG")]
    config: Option<PathBuf>,
    /// Where to mount all volumes
    #[arg(long, value_name = "DIR")]
    mount: Option<PathBuf>,
    /// Where sockets, settings, secrets and logs of the servers go; by default a folder of the store's own in
    /// /var/lib/stillpoint
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Serve the API on TCP, too, for those who show a token; port 0 takes a free one
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<SocketAddr>,
    /// The certificate of the API on TCP, with what leads from it to a known one: PEM
    #[arg(long, value_name = "FILE")]
    tls_certificate: Option<PathBuf>,
    /// Its private key: PEM
    #[arg(long, value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// Jobs that run at a time [default: 4]
    #[arg(long, value_name = "COUNT")]
    jobs_max: Option<usize>,
    /// Days that jobs, their logs and events are kept [default: 90]
    #[arg(long, value_name = "DAYS")]
    log_keep_days: Option<u32>,
    /// A folder with a PostgreSQL installation beside those of the host's packages; may be given again
    #[arg(long, value_name = "DIR")]
    postgres: Vec<PathBuf>,
    /// Servers go on when the daemon ends, and the mount with them; the next daemon finds them
    #[arg(long)]
    keep_servers: bool,
    /// Return when the mount answers, and go on in the background
    #[arg(long)]
    background: bool,
    /// Say on stdout when the mount answers, then leave the caller's session
    #[arg(long, hide = true, conflicts_with = "background")]
    announce: bool,
}

pub(super) fn run(arguments: &Arguments, context: &Context) -> Result<Outcome> {
    if arguments.background {
        return launch_background(options(arguments, context)?, context);
    }
    let result = options(arguments, context).and_then(|options| serve(arguments, options));
    if let (true, Err(failure)) = (arguments.announce, &result) {
        announce(&failure.message())?;
    }
    result.map(|()| Outcome::Done)
}

/// What file, environment and arguments say together, with absolute paths.
fn options(arguments: &Arguments, context: &Context) -> Result<Options> {
    let (certificate, key) = (arguments.tls_certificate.clone(), arguments.tls_key.clone());
    let said = Config {
        mount: arguments.mount.clone(),
        state: arguments.state.clone(),
        listen: arguments.listen,
        tls: (certificate.is_some() || key.is_some()).then_some(TlsConfig { certificate, key }),
        jobs_max: arguments.jobs_max,
        log_keep_days: arguments.log_keep_days,
        postgres: Some(arguments.postgres.clone()).filter(|folders| !folders.is_empty()),
        keep_servers: arguments.keep_servers.then_some(true),
        ..said_by_arguments(context)
    };
    let mut options = Layers::of(arguments.config.as_deref(), said)?.effective().options()?;
    let shown = options.store.display().to_string();
    options.store = options.store.canonicalize().map_err(|e| Error::io("open the store", &shown, e))?;
    options.mount = mount_folder(&options.mount)?;
    let tls = options.listen.as_mut().and_then(|listen| listen.tls.as_mut());
    let files = tls.into_iter().flat_map(|tls| [&mut tls.certificate, &mut tls.key]);
    for path in options.state.iter_mut().chain(&mut options.postgres).chain(files) {
        let shown = path.display().to_string();
        *path = std::path::absolute(&*path).map_err(|e| Error::io("resolve", &shown, e))?;
    }
    Ok(options)
}

fn launch_background(options: Options, context: &Context) -> Result<Outcome> {
    if let Some(client) = Client::connect_to(&options.store, SOCKET_NAME)? {
        return Err(Failure::new(
            ErrorKind::InUse,
            format!(
                "process {} has the store {} already",
                client.peer().as_raw_nonzero(),
                options.store.display()
            ),
        )
        .hint("see what it does with `stillpoint status`"));
    }
    launch(&options.store, background_command(&options))?;
    let api = match Client::connect_to(&options.store, SOCKET_NAME)? {
        Some(client) => match client.perform(&Request::Status, &mut |_| {})? {
            Reply::Status(row) => row.api,
            _ => return Err(unexpected()),
        },
        None => None,
    };
    context.output.show(&Started { store: options.store, mounted_at: options.mount, api })?;
    Ok(Outcome::Done)
}

/// The folder to mount at, made if it is not there.
fn mount_folder(mount: &Path) -> Result<PathBuf> {
    let shown = mount.display().to_string();
    std::fs::create_dir_all(mount).or_else(|e| match e.kind() {
        // The mount of a killed daemon, which the next one replaces.
        std::io::ErrorKind::AlreadyExists | std::io::ErrorKind::NotConnected => Ok(()),
        _ => Err(Error::io("create", &shown, e)),
    })?;
    resolve(mount)
}

/// This program with all that was said, by arguments alone.
fn background_command(options: &Options) -> Command {
    // This very program, also when its file was replaced since it started.
    let mut command = Command::new("/proc/self/exe");
    command.arg0("stillpoint").arg("--store").arg(&options.store);
    command.args(["daemon", "--announce", "--mount"]).arg(&options.mount);
    command.args(["--jobs-max", &options.jobs_max.to_string()]);
    command.args(["--log-keep-days", &options.log_keep_days.to_string()]);
    if let Some(state) = &options.state {
        command.arg("--state").arg(state);
    }
    if let Some(listen) = &options.listen {
        command.args(["--listen", &listen.address.to_string()]);
        if let Some(tls) = &listen.tls {
            command.arg("--tls-certificate").arg(&tls.certificate).arg("--tls-key").arg(&tls.key);
        }
    }
    for folder in &options.postgres {
        command.arg("--postgres").arg(folder);
    }
    if options.keep_servers {
        command.arg("--keep-servers");
    }
    command.env_remove("STILLPOINT_CONFIG").env_remove("STILLPOINT_KEEP_SERVERS");
    // The working directory would keep the caller's file system busy.
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

fn serve(arguments: &Arguments, options: Options) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::new(ErrorKind::NotAllowed, "the daemon mounts and runs servers: only root may")
            .hint("run as root"));
    }
    if arguments.announce {
        // Out of the caller's session; it fails only for the leader of a process group.
        let _ = rustix::process::setsid();
    }
    let mut signals = ending_signals()?;
    let daemon = Daemon::start(&options, &environment(), &|store, directory| {
        mount_apart(store, directory).map_err(|failure| failure.error)
    })?;
    tracing::info!("{} is mounted at {}", daemon.store().display(), options.mount.display());
    if let Some(api) = daemon.api() {
        tracing::info!("the API listens at {api}");
    }
    if arguments.announce {
        announce(&Message::Done(Reply::Done))?;
    }
    let taken_off = loop {
        if let Some(result) = daemon.has_ended() {
            break Some(result);
        }
        if let Some(signal) = signals.pending().next() {
            tracing::info!("ending on signal {signal}");
            break None;
        }
    };
    let ended = daemon.end();
    tracing::info!("ended");
    taken_off.unwrap_or(Ok(())).and(ended)?;
    Ok(())
}

#[derive(Serialize)]
struct Started {
    store: PathBuf,
    mounted_at: PathBuf,
    /// Where the API listens on TCP.
    api: Option<String>,
}

impl Show for Started {
    fn table(&self) -> Table {
        let mut table = Table::facts();
        table.fact("store", self.store.display().to_string());
        table.fact("mounted at", self.mounted_at.display().to_string());
        if let Some(api) = &self.api {
            table.fact("api", api);
        }
        table
    }
}
