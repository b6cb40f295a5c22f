//! Statements and expressions, parsed. Names are as written; nothing is looked up yet.

use crate::reply::Value;

/// A scalar expression or a condition.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Expr {
    Literal(Value),
    Column {
        qualifier: Option<String>,
        name: String,
    },
    Variable(String),
    Global(String),
    Call {
        name: String,
        arguments: Vec<Expr>,
    },
    /// `COUNT(*)`.
    CountAll,
    Cast {
        value: Box<Expr>,
        kind: TypeName,
        style: Option<i128>,
    },
    Binary {
        sign: &'static str,
        left: Box<Expr>,
        right: Box<Expr>,
    },
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    Not(Box<Expr>),
    IsNull {
        value: Box<Expr>,
        not: bool,
    },
    In {
        value: Box<Expr>,
        list: Vec<Expr>,
        not: bool,
    },
    InQuery {
        value: Box<Expr>,
        query: Box<Select>,
        not: bool,
    },
    Exists(Box<Select>),
    Like {
        value: Box<Expr>,
        pattern: Box<Expr>,
        not: bool,
    },
    Between {
        value: Box<Expr>,
        low: Box<Expr>,
        high: Box<Expr>,
        not: bool,
    },
    Case {
        of: Option<Box<Expr>>,
        arms: Vec<(Expr, Expr)>,
        otherwise: Option<Box<Expr>>,
    },
}

/// A type's name with its numbers; -1 is `max`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TypeName {
    pub name: String,
    pub numbers: Vec<i64>,
}

/// One item of a select list.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Item {
    /// `*` or `a.*`.
    All(Option<String>),
    One {
        value: Expr,
        alias: Option<String>,
    },
    /// `@x = value`.
    Assign {
        variable: String,
        value: Expr,
    },
}

/// A view, table or function in FROM.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Source {
    /// Lower case, dots between its parts.
    pub name: String,
    /// Of a table-valued function.
    pub arguments: Option<Vec<Expr>>,
    pub alias: String,
}

/// How a further source is joined.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Join {
    pub source: Source,
    /// LEFT JOIN or OUTER APPLY.
    pub outer: bool,
    pub on: Option<Expr>,
}

/// A query.
#[derive(Clone, Debug, PartialEq, Default)]
pub(crate) struct Select {
    pub distinct: bool,
    pub top: Option<Expr>,
    pub items: Vec<Item>,
    pub from: Option<Source>,
    pub joins: Vec<Join>,
    pub filter: Option<Expr>,
    /// True is descending.
    pub order: Vec<(Expr, bool)>,
}

/// A file of CREATE or ALTER DATABASE.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct FileSpec {
    pub name: Option<String>,
    pub new_name: Option<String>,
    pub path: Option<String>,
    /// In pages of 8 KiB.
    pub pages: Option<u64>,
    /// By index into the statement's filegroups; none is PRIMARY.
    pub group: Option<usize>,
}

/// A filegroup of CREATE DATABASE: name and what it contains.
pub(crate) type GroupSpec = (String, &'static str);

/// `WITH ROLLBACK IMMEDIATE` and the like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Termination {
    Wait,
    RollbackImmediate,
    NoWait,
}

/// One thing that ALTER DATABASE does.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Alteration {
    Online,
    Offline,
    Emergency,
    SingleUser,
    MultiUser,
    RestrictedUser,
    Recovery(super::database::RecoveryModel),
    ReadOnly(bool),
    Suspend {
        on: bool,
        copy_only: bool,
    },
    Rename(String),
    ModifyFile(FileSpec),
    AddFile {
        file: FileSpec,
        log: bool,
        group: Option<String>,
    },
    RemoveFile(String),
    AddGroup(GroupSpec),
    RemoveGroup(String),
    /// An option that changes nothing that is modelled: PAGE_VERIFY, AUTO_CLOSE and such.
    Harmless,
}

/// DISK devices and options of BACKUP and RESTORE.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct BackupOptions {
    pub disks: Vec<Expr>,
    /// `(upper-case name, value)`.
    pub flags: Vec<(String, Option<Expr>)>,
    pub moves: Vec<(Expr, Expr)>,
}

impl BackupOptions {
    /// Whether an option was given.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.flags.iter().any(|(flag, _)| flag == name)
    }

    /// An option's value.
    pub(crate) fn value(&self, name: &str) -> Option<&Expr> {
        self.flags.iter().find(|(flag, _)| flag == name).and_then(|(_, value)| value.as_ref())
    }
}

/// What RESTORE restores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RestoreWhat {
    Database,
    Log,
    HeaderOnly,
    FileListOnly,
    LabelOnly,
    VerifyOnly,
}

/// A statement.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Statement {
    /// SET options that change nothing that is modelled.
    Nothing,
    Print(Expr),
    If {
        condition: Expr,
        then: Box<Statement>,
        otherwise: Option<Box<Statement>>,
    },
    Select(Select),
    Use(String),
    Declare {
        variable: String,
        kind: TypeName,
        value: Option<Expr>,
    },
    Assign {
        variable: String,
        value: Expr,
    },
    CreateDatabase {
        name: String,
        files: Vec<FileSpec>,
        groups: Vec<GroupSpec>,
        logs: Vec<FileSpec>,
        attach: bool,
    },
    AlterDatabase {
        name: String,
        change: Vec<Alteration>,
        termination: Termination,
    },
    SuspendServer {
        on: bool,
        copy_only: bool,
        group: Option<Vec<String>>,
    },
    DropDatabase {
        names: Vec<String>,
        if_exists: bool,
    },
    Detach {
        name: Expr,
    },
    CheckDb {
        name: String,
        no_infomsgs: bool,
    },
    Kill(Expr),
    WaitFor {
        delay: Expr,
    },
    /// `databases` is more than one for BACKUP GROUP, `None` for BACKUP SERVER.
    Backup {
        log: bool,
        group: bool,
        databases: Option<Vec<Expr>>,
        options: BackupOptions,
    },
    Restore {
        what: RestoreWhat,
        name: Option<Expr>,
        options: BackupOptions,
    },
    /// Into `dbo.transactions` of the session's database or of one that is named.
    Insert {
        database: Option<String>,
        names: Vec<Expr>,
    },
    Begin {
        mark: Option<(String, String)>,
    },
    Commit,
    Rollback,
    Security(Security),
}

/// Logins, users and rights.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Security {
    CreateLogin {
        name: String,
        password: String,
    },
    AlterLogin {
        name: String,
        password: Option<String>,
        enabled: Option<bool>,
        new_name: Option<String>,
    },
    DropLogin(String),
    CreateUser {
        name: String,
        login: String,
    },
    DropUser {
        name: String,
        if_exists: bool,
    },
    Owner {
        database: String,
        login: String,
    },
    Role {
        server: bool,
        role: String,
        member: String,
        add: bool,
    },
    /// `object` is `None` for a right on the server or database.
    Grant {
        rights: Vec<String>,
        object: Option<String>,
        to: String,
        revoke: bool,
    },
}
