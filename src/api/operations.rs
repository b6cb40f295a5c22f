//! Every operation of the API in one table: what it is called, what it takes and answers, and who may ask for it.
//!
//! The OpenAPI document is written from this table, and `access` decides by it. A route that is not in it can be
//! asked for by an admin only, and fails the test below.

use schemars::generate::SchemaGenerator;
use schemars::{JsonSchema, Schema};

use super::backups::{Protect, Protection, Restore, RunBackup, WhyPoint};
use super::hooks::{Hook, HookTemplate, NewHook};
use super::policies::{Binding, NewPolicy, Policy, SimulateRequest, Simulation, Why};
use super::tokens::{MadeToken, NewToken, Token};
use super::types::{
    Bookmark, Change, Dataset, Event, Export, Job, JobLog, Link, LinkPlan, Points, Provision, Replace,
    Snapshot,
};
use super::{
    BackupSet, Environment, Group as GroupOf, GroupName, NewRepository, NewSource, Repository, RestorePlan,
    RestorePoint, SourceChange, SourceConfig,
};

/// The right that an operation needs. Each one contains the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Needs {
    /// No token at all.
    Nothing,
    /// To read what is of the group.
    View,
    /// To make, run and delete VDBs of the group.
    UseVdb,
    /// To do anything to datasets of the group.
    Operate,
    Administer,
}

/// What the address names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum About {
    /// Nothing of a group. A list then holds what the token may see, which its handler looks after.
    Nothing,
    /// The dataset `{name}`.
    Dataset,
    /// The job `{id}`.
    Job,
    /// The source config `{name}`.
    Source,
    /// The group `{name}`.
    Group,
    /// The backup set `{name}`.
    BackupSet,
}

/// What a field of the body names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    /// The group that something is made in: the right is needed there.
    Group,
    /// `DATASET` or `DATASET@SNAPSHOT` to do something to: the right is needed on it.
    Target,
    /// `DATASET` or `DATASET@SNAPSHOT` to take data from, or to look at: it must be one that the token may see.
    Source,
    /// A source config to link with: the right is needed on it, as its password is used.
    SourceConfig,
    /// A file of the host, which no group owns: an admin's to name.
    HostFile,
    /// A list of hooks. They run programs on the host: an admin's, or made from an admin's template by an operator.
    Hooks,
    /// The whole body is a hook.
    Hook,
    /// An adapter: one that runs commands of its parameters is an admin's.
    Adapter,
    /// Parameters of the dataset's adapter, or settings of what is made from `from`: an admin's, if that adapter runs
    /// commands of them.
    Parameters,
    Settings,
}

/// How an operation answers when all is well.
#[derive(Clone, Copy)]
pub(super) enum Answer {
    /// 202 and the job that carries it out.
    Job,
    Json(Type),
    /// 201.
    Created(Type),
    NoContent,
    /// Server-sent events; the text says which.
    Stream(&'static str),
    /// The OpenAPI document.
    Document,
}

/// A type of the wire, by the function that describes it.
pub(super) type Type = fn(&mut SchemaGenerator) -> Schema;

/// A parameter in the query.
#[derive(Clone, Copy)]
pub(super) struct Parameter {
    pub name: &'static str,
    /// Its JSON type.
    pub kind: &'static str,
    pub about: &'static str,
}

/// One method of one address.
#[derive(Clone)]
pub(super) struct Operation {
    pub method: &'static str,
    pub path: &'static str,
    pub name: &'static str,
    pub summary: &'static str,
    pub needs: Needs,
    pub about: About,
    pub fields: &'static [(&'static str, Field)],
    pub query: &'static [Parameter],
    /// Its type, and whether it may be left out.
    pub body: Option<(Type, bool)>,
    pub answer: Answer,
}

const CURSOR: &[Parameter] = &[
    Parameter { name: "limit", kind: "integer", about: "How many at most, up to 1000." },
    Parameter {
        name: "after",
        kind: "integer",
        about: "Those that follow this number, oldest first. The `Link` header has the address of the next page.",
    },
];
/// Lists of which the end is what is usually asked for.
const NEWEST: &[Parameter] = &[
    CURSOR[0],
    Parameter {
        name: "after",
        kind: "integer",
        about: "Those that follow this number, oldest first; 0 for the oldest. Without it, the newest ones.",
    },
    Parameter {
        name: "before",
        kind: "integer",
        about: "The newest ones before this number. The `Link` header has the address of the page before.",
    },
];
const FORCE: &[Parameter] = &[Parameter {
    name: "force",
    kind: "boolean",
    about: "Give up what is held on a source that cannot be reached.",
}];
const HOOK_NAME: &[Parameter] = &[Parameter { name: "name", kind: "string", about: "The hook's name." }];
const WAIT: &[Parameter] =
    &[Parameter { name: "wait", kind: "integer", about: "Seconds to wait for the job's end, up to 30." }];
const LOG_FROM: &[Parameter] =
    &[Parameter { name: "from", kind: "integer", about: "The byte to read on from; 0 for the beginning." }];
const EVENTS_AFTER: &[Parameter] = &[Parameter {
    name: "after",
    kind: "integer",
    about: "Begin behind this event; without it, with what happens from now on. `Last-Event-ID` goes before it.",
}];

const JOB_STREAM: &str = "`job`: the job, whenever it changed; `log`: a piece of its log as a JSON string, its id the \
    byte to go on from; `end`: the job has ended, and so has the stream.";
const EVENT_STREAM: &str = "`event`: an event, its id the event's number; `reset`: the client fell too far behind, \
    or asked for what is no longer kept, and has to read the list.";

fn schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

impl Operation {
    fn new(
        method: &'static str,
        path: &'static str,
        name: &'static str,
        summary: &'static str,
        needs: Needs,
        answer: Answer,
    ) -> Self {
        Self {
            method,
            path,
            name,
            summary,
            needs,
            about: if path.starts_with("/v1/datasets/{name}") {
                About::Dataset
            } else if path.starts_with("/v1/jobs/{id}") {
                About::Job
            } else if path.starts_with("/v1/sources/{name}") {
                About::Source
            } else if path.starts_with("/v1/backup-sets/{name}") {
                About::BackupSet
            } else if path.starts_with("/v1/groups/{name}") {
                About::Group
            } else {
                About::Nothing
            },
            fields: &[],
            query: &[],
            body: None,
            answer,
        }
    }

    fn query(self, query: &'static [Parameter]) -> Self {
        Self { query, ..self }
    }

    /// The body, and which of its fields name groups and datasets.
    fn takes<T: JsonSchema>(self, fields: &'static [(&'static str, Field)]) -> Self {
        Self { body: Some((schema::<T>, false)), fields, ..self }
    }

    /// The same with a body that may be left out.
    fn may_take<T: JsonSchema>(self, fields: &'static [(&'static str, Field)]) -> Self {
        Self { body: Some((schema::<T>, true)), fields, ..self }
    }
}

fn json<T: JsonSchema>() -> Answer {
    Answer::Json(schema::<T>)
}

/// The table.
#[rustfmt::skip]
pub(super) fn operations() -> Vec<Operation> {
    use Answer::{Created, Document, Job as Accepts, NoContent, Stream};
    use Field::{Adapter, Group, HostFile, Hook as OneHook, Hooks, Parameters, Settings, Source, SourceConfig as OneSource, Target};
    use Needs::{Administer, Nothing, Operate, UseVdb, View};
    let op = Operation::new;
    vec![
        op("GET", "/v1/openapi.json", "openapi", "This document", Nothing, Document),
        op("GET", "/v1/environments", "list_environments", "List the hosts that servers run on", Operate, json::<Vec<Environment>>()),
        op("GET", "/v1/environments/{name}", "show_environment", "Show a host", Operate, json::<Environment>()),
        op("POST", "/v1/environments/{name}/refresh", "refresh_environment", "Look for the database installations of a host again", Administer, json::<Vec<Repository>>()),
        op("GET", "/v1/repositories", "list_repositories", "List the database installations that were found", Operate, json::<Vec<Repository>>()),
        op("POST", "/v1/repositories", "add_repository", "Add the database installations in a folder of the host", Administer, json::<Vec<Repository>>()).takes::<NewRepository>(&[]),
        op("GET", "/v1/repositories/{name}", "show_repository", "Show a database installation and what runs with it", Operate, json::<Repository>()),
        op("DELETE", "/v1/repositories/{name}", "remove_repository", "Forget a database installation that was added or is gone", Administer, NoContent),
        op("POST", "/v1/repositories/{name}/enable", "enable_repository", "Let a database installation be chosen again", Administer, json::<Repository>()),
        op("POST", "/v1/repositories/{name}/disable", "disable_repository", "Keep a database installation from being chosen for links and VDBs", Administer, json::<Repository>()),
        op("GET", "/v1/sources", "list_sources", "List source configs", View, json::<Vec<SourceConfig>>()),
        op("POST", "/v1/sources", "add_source", "Ask a source database and keep its address and password", Operate, Created(schema::<SourceConfig>)).takes::<NewSource>(&[("group", Group), ("ca", HostFile)]),
        op("GET", "/v1/sources/{name}", "show_source", "Show a source config", View, json::<SourceConfig>()),
        op("DELETE", "/v1/sources/{name}", "remove_source", "Forget a source config that no dSource has", Operate, NoContent),
        op("POST", "/v1/sources/{name}/configure", "configure_source", "Change a source config, after asking the source", Operate, json::<SourceConfig>()).takes::<SourceChange>(&[("ca", HostFile)]),
        op("POST", "/v1/sources/{name}/check", "check_source", "Ask a source whether it can be linked now", Operate, json::<SourceConfig>()),
        op("GET", "/v1/groups", "list_groups", "List groups and what is in them", View, json::<Vec<GroupOf>>()),
        op("POST", "/v1/groups", "create_group", "Make a group", Administer, Created(schema::<GroupOf>)).takes::<GroupName>(&[]),
        op("GET", "/v1/groups/{name}", "show_group", "Show a group and what is in it", View, json::<GroupOf>()),
        op("DELETE", "/v1/groups/{name}", "remove_group", "Remove a group that nothing is in", Administer, NoContent),
        op("POST", "/v1/groups/{name}/rename", "rename_group", "Give a group another name, wherever it is named", Administer, json::<GroupOf>()).takes::<GroupName>(&[]),
        op("GET", "/v1/backup-sets", "list_backup_sets", "List backup sets", View, json::<Vec<BackupSet>>()),
        op("POST", "/v1/backup-sets", "protect_databases", "Back up source databases of an instance together from now on", Operate, Created(schema::<BackupSet>)).takes::<Protect>(&[("group", Group), ("adapter", Adapter)]),
        op("POST", "/v1/backup-sets/plan", "plan_protect", "Ask an instance what backing it up would mean", Operate, json::<LinkPlan>()).takes::<Protect>(&[("group", Group), ("adapter", Adapter)]),
        op("GET", "/v1/backup-sets/{name}", "show_backup_set", "Show a backup set and from where to where its databases can be restored", View, json::<BackupSet>()),
        op("PUT", "/v1/backup-sets/{name}", "configure_backup_set", "Say anew what a backup set is of: instance, login and databases", Operate, json::<BackupSet>()).takes::<Protection>(&[("adapter", Adapter)]),
        op("DELETE", "/v1/backup-sets/{name}", "unprotect_databases", "Remove a backup set with all its restore points", Operate, Accepts),
        op("POST", "/v1/backup-sets/{name}/run", "run_backup", "Back up its databases now", Operate, Accepts).may_take::<RunBackup>(&[]),
        op("GET", "/v1/backup-sets/{name}/points", "list_restore_points", "List its restore points", View, json::<Vec<RestorePoint>>()),
        op("GET", "/v1/backup-sets/{name}/points/{id}", "show_restore_point", "Show a restore point", View, json::<RestorePoint>()),
        op("DELETE", "/v1/backup-sets/{name}/points/{id}", "remove_restore_point", "Remove a restore point that no other needs", Operate, NoContent),
        op("GET", "/v1/backup-sets/{name}/points/{id}/why", "why_restore_point", "Say why a restore point is kept", View, json::<WhyPoint>()),
        op("POST", "/v1/backup-sets/{name}/points/{id}/verify", "verify_restore_point", "Check a restore point", Operate, Accepts),
        op("POST", "/v1/backup-sets/{name}/verify", "verify_backup_set", "Check the newest restore point of each database", Operate, Accepts),
        // It names folders of the host, which no group owns.
        op("POST", "/v1/backup-sets/{name}/restore", "restore_database", "Restore a database to a point, as a database or as files", Operate, Accepts).takes::<Restore>(&[("files", HostFile), ("folder", HostFile)]),
        op("POST", "/v1/backup-sets/{name}/restore/plan", "plan_restore", "Say which backups a restore would take, in which order and to which LSN", Operate, json::<RestorePlan>()).takes::<Restore>(&[("files", HostFile), ("folder", HostFile)]),
        op("GET", "/v1/backup-sets/{name}/policies", "list_policies_of_backup_set", "List the policies of a backup set", View, json::<Vec<Binding>>()),
        op("PUT", "/v1/backup-sets/{name}/policies/{policy}", "apply_policy_to_backup_set", "Give a backup set a policy", Operate, NoContent),
        op("DELETE", "/v1/backup-sets/{name}/policies/{policy}", "remove_policy_from_backup_set", "Take a policy from a backup set", Operate, NoContent),
        op("GET", "/v1/dsources", "list_dsources", "List dSources", View, json::<Vec<Dataset>>()).query(CURSOR),
        op("POST", "/v1/dsources", "link_dsource", "Link a source database", Operate, Accepts).takes::<Link>(&[("group", Group), ("mount_base", HostFile), ("source", OneSource), ("hooks", Hooks), ("adapter", Adapter)]),
        op("POST", "/v1/dsources/plan", "plan_link", "Ask the source what linking it would do", Operate, json::<LinkPlan>()).takes::<Link>(&[("group", Group), ("mount_base", HostFile), ("source", OneSource), ("hooks", Hooks), ("adapter", Adapter)]),
        op("GET", "/v1/vdbs", "list_vdbs", "List VDBs", View, json::<Vec<Dataset>>()).query(CURSOR),
        op("POST", "/v1/vdbs", "provision_vdb", "Make a VDB from a snapshot or a point in time", UseVdb, Accepts).takes::<Provision>(&[("group", Group), ("mount_base", HostFile), ("from", Source), ("hooks", Hooks), ("settings", Settings)]),
        op("GET", "/v1/datasets/{name}", "show_dataset", "Show a dSource or VDB, and ask its server how it is", View, json::<Dataset>()),
        op("DELETE", "/v1/datasets/{name}", "delete_dataset", "Delete a dSource or VDB with all its snapshots", UseVdb, Accepts).query(FORCE),
        op("GET", "/v1/datasets/{name}/snapshots", "list_snapshots", "List the snapshots of a dataset", View, json::<Vec<Snapshot>>()).query(CURSOR),
        op("POST", "/v1/datasets/{name}/snapshots", "take_snapshot", "Bring a dSource up to its source and snapshot it, or snapshot a VDB", UseVdb, Accepts),
        op("POST", "/v1/datasets/{name}/snapshots/{snapshot}/verify", "verify_snapshot", "Start a throw-away clone of a snapshot and check its database", UseVdb, Accepts),
        op("POST", "/v1/datasets/{name}/snapshots/{snapshot}/check-files", "check_snapshot_files", "Check the files of a snapshot again, without a server", UseVdb, Accepts),
        op("DELETE", "/v1/datasets/{name}/snapshots/{snapshot}", "destroy_snapshot", "Destroy a snapshot that nothing depends on", Operate, NoContent),
        op("GET", "/v1/datasets/{name}/points", "list_points", "Show from where to where points in time can be reached", View, json::<Vec<Points>>()),
        op("PUT", "/v1/datasets/{name}/lock", "lock_dataset", "Refuse refresh, rewind and deletion", Operate, NoContent),
        op("DELETE", "/v1/datasets/{name}/lock", "unlock_dataset", "Allow refresh, rewind and deletion again", Operate, NoContent),
        op("POST", "/v1/datasets/{name}/configure", "configure_dataset", "Change its settings", Operate, Accepts).takes::<Change>(&[("parameters", Parameters), ("source", OneSource)]),
        op("POST", "/v1/datasets/{name}/configure/plan", "plan_configure", "Say what a change of its settings would do", Operate, json::<LinkPlan>()).takes::<Change>(&[("parameters", Parameters), ("source", OneSource)]),
        op("POST", "/v1/datasets/{name}/detach", "detach_dsource", "Let go of the source; snapshots stay and provision", Operate, Accepts).query(FORCE),
        op("POST", "/v1/datasets/{name}/attach", "attach_dsource", "Follow a source again, the same or another", Operate, Accepts).takes::<Change>(&[("parameters", Parameters), ("source", OneSource)]),
        op("POST", "/v1/datasets/{name}/attach/plan", "plan_attach", "Ask the source what attaching to it would do", Operate, json::<LinkPlan>()).takes::<Change>(&[("parameters", Parameters), ("source", OneSource)]),
        op("POST", "/v1/datasets/{name}/resync", "resync_dsource", "Take a new first copy of the source", Operate, Accepts).takes::<Change>(&[("parameters", Parameters), ("source", OneSource)]),
        op("POST", "/v1/datasets/{name}/resync/plan", "plan_resync", "Ask the source what a new first copy would do", Operate, json::<LinkPlan>()).takes::<Change>(&[("parameters", Parameters), ("source", OneSource)]),
        // It names a folder of the host, which no group owns.
        op("POST", "/v1/datasets/{name}/export", "export_vdb", "Write a VDB's files into a folder of the host", Administer, Accepts).takes::<Export>(&[]),
        op("POST", "/v1/datasets/{name}/start", "start_dataset", "Start its server", UseVdb, Accepts),
        op("POST", "/v1/datasets/{name}/stop", "stop_dataset", "Stop its server", UseVdb, Accepts),
        op("POST", "/v1/datasets/{name}/enable", "enable_dataset", "Resume a disabled dataset", Operate, Accepts),
        op("POST", "/v1/datasets/{name}/disable", "disable_dataset", "Stop its server and every operation on it", Operate, Accepts),
        op("POST", "/v1/datasets/{name}/refresh", "refresh_vdb", "Give a VDB the data of its parent's newest snapshot, or of the one named", UseVdb, Accepts).may_take::<Replace>(&[("from", Source)]),
        op("POST", "/v1/datasets/{name}/rewind", "rewind_vdb", "Take a VDB back to one of its own snapshots, or to a point in its own time", UseVdb, Accepts).takes::<Replace>(&[]),
        op("POST", "/v1/datasets/{name}/undo", "undo_vdb", "Undo the last refresh or rewind", UseVdb, Accepts),
        op("POST", "/v1/bookmarks", "make_bookmark", "Name a snapshot, so that nothing removes it", UseVdb, json::<Snapshot>()).takes::<Bookmark>(&[("snapshot", Target)]),
        op("GET", "/v1/jobs", "list_jobs", "List jobs", View, json::<Vec<Job>>()).query(NEWEST),
        op("GET", "/v1/jobs/{id}", "show_job", "Show a job, after waiting for its end if asked to", View, json::<Job>()).query(WAIT),
        op("GET", "/v1/jobs/{id}/log", "read_job_log", "Read a piece of a job's log", View, json::<JobLog>()).query(LOG_FROM),
        op("GET", "/v1/jobs/{id}/stream", "follow_job", "Follow a job's progress and log until it ends", View, Stream(JOB_STREAM)).query(LOG_FROM),
        op("POST", "/v1/jobs/{id}/cancel", "cancel_job", "Ask a job to end at its next safe point", UseVdb, json::<Job>()),
        op("GET", "/v1/events", "list_events", "List events", View, json::<Vec<Event>>()).query(NEWEST),
        op("GET", "/v1/events/stream", "follow_events", "Follow what happens", View, Stream(EVENT_STREAM)).query(EVENTS_AFTER),
        op("GET", "/v1/policies", "list_policies", "List policies", View, json::<Vec<Policy>>()),
        op("POST", "/v1/policies", "create_policy", "Make a policy", Administer, json::<Policy>()).takes::<NewPolicy>(&[]),
        op("POST", "/v1/policies/simulate", "simulate_policy", "Say what policies would do at a moment", View, json::<Simulation>()).takes::<SimulateRequest>(&[("dataset", Source)]),
        op("GET", "/v1/policies/{name}", "show_policy", "Show a policy and the datasets that have it", View, json::<Policy>()),
        op("PUT", "/v1/policies/{name}", "update_policy", "Change what a policy does, for all who have it", Administer, json::<Policy>()).takes::<NewPolicy>(&[]),
        op("DELETE", "/v1/policies/{name}", "delete_policy", "Delete a policy that no dataset has", Administer, NoContent),
        op("GET", "/v1/datasets/{name}/policies", "list_policies_of", "List the policies of a dataset", View, json::<Vec<Binding>>()),
        op("PUT", "/v1/datasets/{name}/policies/{policy}", "apply_policy", "Give a dataset a policy", Operate, NoContent),
        op("DELETE", "/v1/datasets/{name}/policies/{policy}", "remove_policy", "Take a policy from a dataset", Operate, NoContent),
        op("GET", "/v1/datasets/{name}/snapshots/{snapshot}/why", "why_snapshot", "Say why a snapshot is kept", View, json::<Why>()),
        op("GET", "/v1/datasets/{name}/hooks", "list_hooks", "List the hooks of a dataset", View, json::<Vec<Hook>>()),
        op("PUT", "/v1/datasets/{name}/hooks", "put_hook", "Add a hook to a dataset, or replace the one of its name", Operate, json::<Hook>()).takes::<NewHook>(&[("", OneHook)]),
        op("DELETE", "/v1/datasets/{name}/hooks", "remove_hook", "Take a hook from a dataset", Operate, NoContent).query(HOOK_NAME),
        op("GET", "/v1/hook-templates", "list_hook_templates", "List the templates of hooks", View, json::<Vec<HookTemplate>>()),
        op("POST", "/v1/hook-templates", "create_hook_template", "Make a template of hooks", Administer, json::<HookTemplate>()).takes::<HookTemplate>(&[]),
        op("DELETE", "/v1/hook-templates/{name}", "delete_hook_template", "Delete a template of hooks", Administer, NoContent),
        op("GET", "/v1/tokens", "list_tokens", "List tokens", Administer, json::<Vec<Token>>()),
        op("POST", "/v1/tokens", "create_token", "Make a token; its text is in this answer and nowhere else", Administer, Created(schema::<MadeToken>)).takes::<NewToken>(&[]),
        op("DELETE", "/v1/tokens/{name}", "revoke_token", "Revoke a token", Administer, NoContent),
    ]
}

/// The operation of a method and an address as it is registered.
pub(super) fn find(method: &str, path: &str) -> Option<Operation> {
    operations().into_iter().find(|operation| operation.method == method && operation.path == path)
}

#[cfg(test)]
mod tests;
