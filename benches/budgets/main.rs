//! The budgets of `design.md`, measured in one run: `cargo bench --bench budgets -- [options]`.
//!
//! Needs root (loop devices, mounts, PostgreSQL under a user of its own) and a quiet machine: half an hour or
//! more for all sections. The table goes to stdout, progress to stderr.

#![allow(unreachable_pub, reason = "in a program `pub` marks what a module offers to the others")]

mod budget;
mod cleanup;
mod command;
mod filesystems;
mod foreground;
mod lineage;
mod machine;
mod memory;
mod pgbench;
mod postgres;
mod recovery;
mod scan;
mod setting;
mod space;
mod stillpoint;
mod vdb;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use clap::builder::TypedValueParser as _;
use serde::Serialize;

use budget::Findings;
use machine::Machine;
use postgres::Installation;
use setting::Setting;

/// Measures the budgets and prints the table.
#[derive(Clone, Debug, Parser)]
#[command(name = "budgets")]
pub struct Arguments {
    /// Only these sections
    #[arg(long, value_delimiter = ',', value_parser = section_names())]
    only: Vec<String>,
    /// Only these file systems in the pgbench section: host, stillpoint, btrfs, ext4, xfs, zfs-fuse
    #[arg(long, value_delimiter = ',')]
    file_systems: Vec<String>,
    /// Seconds of each timed part
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Repetitions, whose median counts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..).map(usize::from))]
    runs: usize,
    /// pgbench clients
    #[arg(long, default_value_t = 8)]
    clients: u32,
    /// Where to put all data; the host's file system there is what we compare with
    #[arg(long)]
    scratch: Option<PathBuf>,
    /// Also write everything to this file as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// `mount --cache` of the Stillpoint mounts; without it the program's default
    #[arg(long)]
    cache: Option<String>,
    /// Do not install file systems that are missing; leave them out
    #[arg(long = "no-install", action = clap::ArgAction::SetFalse)]
    install: bool,
    /// Tiny sizes: shows that everything works, the figures mean nothing
    #[arg(long)]
    quick: bool,
    /// The part of a child of this program: fill the journal of this store and wait to be killed
    #[arg(long, hide = true)]
    fill_journal: Option<PathBuf>,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

type Section = fn(&Setting, &Installation, &mut Findings) -> anyhow::Result<()>;

const SECTIONS: [(&str, Section); 10] = [
    (pgbench::SECTION, pgbench::run),
    (scan::SECTION, scan::run),
    (lineage::SECTION, lineage::run),
    (vdb::SECTION, vdb::run),
    (space::UPDATE, space::update),
    (space::RESTORE, space::restore),
    (memory::SECTION, memory::run),
    (recovery::SECTION, recovery::run),
    (foreground::BACKGROUND, foreground::background),
    (foreground::DESTROY, foreground::destroy),
];

fn section_names() -> clap::builder::PossibleValuesParser {
    SECTIONS.map(|(name, _)| name).into()
}

#[derive(Serialize)]
struct Document<'a> {
    machine: &'a Machine,
    #[serde(flatten)]
    findings: &'a Findings,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if !arguments.bench {
        // `cargo test --all-targets` starts benches too, to see that they do.
        println!("budgets: nothing to do without --bench");
        return ExitCode::SUCCESS;
    }
    let done = match &arguments.fill_journal {
        Some(store) => recovery::fill_journal(store).map(|()| true),
        None => measure(arguments),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("budgets: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Returns whether every section could be measured.
fn measure(arguments: Arguments) -> anyhow::Result<bool> {
    anyhow::ensure!(rustix::process::geteuid().is_root(), "must run as root: it mounts file systems");
    let installation = Installation::find()?;
    let setting = Setting::new(arguments)?;
    let machine = Machine::describe(&setting.scratch, &installation.version);
    let mut findings = Findings::default();
    for (name, section) in SECTIONS {
        let only = &setting.arguments.only;
        if !only.is_empty() && !only.iter().any(|wanted| wanted == name) {
            continue;
        }
        setting.say(&format!("section {name}"));
        if let Err(error) = section(&setting, &installation, &mut findings) {
            // Then it failed because its programs were ended.
            setting.cleanup.wait_if_interrupted();
            setting.say(&format!("section {name} failed: {error:#}"));
            findings.gap(name, format!("{error:#}"), true);
        }
    }
    println!("{}\n{}", machine.lines(), findings.table());
    if let Some(path) = &setting.arguments.json {
        let text = serde_json::to_string_pretty(&Document { machine: &machine, findings: &findings })?;
        std::fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(findings.gaps.iter().all(|gap| !gap.failed))
}
