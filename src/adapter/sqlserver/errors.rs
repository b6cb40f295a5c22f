//! What SQL Server's error numbers mean for whoever restores, and what to do.
//!
//! The sentence names the objects that the caller knows; the server's own text stands under it, unchanged. Meanings are those of Microsoft's
//! documentation; LSNs and operating system errors are taken from the server's text, which is English by default. Invariant: an unknown number
//! is passed on with its text and without advice that was made up. Must not know connections.

use crate::base::{Error, ErrorKind};

/// What the caller was doing, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErrorContext {
    pub database: String,
    /// The backup file or files of the statement.
    pub files: Vec<String>,
    /// Where the database's own files are to be.
    pub data_folder: Option<String>,
    /// Who is connected to the database.
    pub sessions: Vec<String>,
    /// The full that a differential was made against, and its file if that is known.
    pub base: Option<String>,
    /// The log backup that is needed next, and its file if that is known.
    pub needed_log: Option<String>,
    /// Stripes that the backup has and the statement did not.
    pub missing_stripes: Vec<String>,
}

/// A server's error in the words of a DBA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    pub number: u32,
    pub kind: ErrorKind,
    /// What happened, with the objects' names.
    pub sentence: String,
    pub advice: String,
    pub server_text: String,
    /// The statement did its work all the same.
    pub harmless: bool,
}

/// Wraps other errors: the one before it says what happened.
pub const WRAPPER: u32 = 3013;

/// Of the errors of one statement the one that tells most: the first that only wraps no other.
pub fn telling<T>(errors: &[(u32, T)]) -> Option<&(u32, T)> {
    errors.iter().find(|(number, _)| *number != WRAPPER).or(errors.first())
}

/// Explains an error of a RESTORE or BACKUP.
pub fn explain(number: u32, server_text: &str, context: &ErrorContext) -> Explained {
    let found = order(number, server_text, context)
        .or_else(|| target(number, context))
        .or_else(|| media(number, server_text, context))
        .or_else(|| files(number, server_text, context));
    let (kind, sentence, advice) = found.unwrap_or_else(|| {
        (
            ErrorKind::Failed,
            format!("SQL Server refused the statement on database {}", context.database),
            String::new(),
        )
    });
    Explained {
        number,
        kind,
        sentence,
        advice,
        server_text: server_text.to_owned(),
        harmless: number == 3009,
    }
}

impl Explained {
    /// The sentence, with the server's text under it.
    pub fn text(&self) -> String {
        format!("{}\nMsg {}: {}", self.sentence, self.number, self.server_text)
    }
}

impl From<Explained> for Error {
    fn from(explained: Explained) -> Self {
        let error = Self::new(explained.kind, explained.text());
        if explained.advice.is_empty() { error } else { error.with_hint(explained.advice) }
    }
}

type Meaning = (ErrorKind, String, String);

/// The backup does not fit what was restored before it.
fn order(number: u32, text: &str, context: &ErrorContext) -> Option<Meaning> {
    let (name, backup) = (&context.database, list(&context.files));
    let needed = context.needed_log.as_ref().map(|log| format!(": {log}")).unwrap_or_default();
    let lsns = lsns(text);
    let lsn = |at: usize| lsns.get(at).map_or("unknown".to_owned(), Clone::clone);
    let (sentence, advice) = match number {
        4320 => (
            format!("the storage of database {name} was interrupted in a restore, so it takes no log now"),
            "restore a full or differential backup before logs".to_owned(),
        ),
        4319 => (
            format!("an earlier restore of database {name} was interrupted"),
            "give the same RESTORE again from its start, or begin with a full backup".to_owned(),
        ),
        4305 => (
            format!("log backup {backup} is too recent for database {name}: it begins at LSN {}, and LSN {} is missing", lsn(0), lsn(1)),
            format!("restore the log backup that has LSN {} first{needed}", lsn(1)),
        ),
        4326 => (
            format!("log backup {backup} has been applied to database {name} already: it ends at LSN {}", lsn(0)),
            format!("go on with the log backup that has LSN {}{needed}", lsn(1)),
        ),
        3136 => {
            let base = context.base.as_deref().unwrap_or("unknown");
            (
                format!("differential {backup} is not based on the full that database {name} was restored from"),
                format!("restore its own full WITH NORECOVERY first: {base}"),
            )
        }
        3117 => (
            format!("database {name} is not RESTORING, so it takes no differential or log"),
            "start with a full backup WITH NORECOVERY".to_owned(),
        ),
        4330 | 3121 => (
            format!("backup {backup} is of another recovery fork than database {name} is on"),
            "the source was restored to an earlier time: use backups of one line only, or start with a full taken since"
                .to_owned(),
        ),
        3154 | 3141 => (
            format!("backup {backup} is of another database than {name}"),
            "name a backup of that database, or give REPLACE if it is to be replaced by the other".to_owned(),
        ),
        3159 => (
            format!("the tail of the log of database {name} has not been backed up"),
            "for a staging database give REPLACE: its log is the source's".to_owned(),
        ),
        _ => return None,
    };
    Some((ErrorKind::Precondition, sentence, advice))
}

/// The point or the state that was asked for.
fn target(number: u32, context: &ErrorContext) -> Option<Meaning> {
    let (name, backup) = (&context.database, list(&context.files));
    let (kind, sentence, advice) = match number {
        4335 | 4338 => (
            ErrorKind::Range,
            format!(
                "the stop point is earlier than database {name} has been rolled forward to with {backup}"
            ),
            "start from a full that was finished before that point",
        ),
        4327 | 4341 => (
            ErrorKind::Precondition,
            format!(
                "log backup {backup} has bulk-logged operations, so database {name} cannot be stopped inside it"
            ),
            "restore all of it, or stop before it",
        ),
        1824 => (
            ErrorKind::Unsupported,
            format!(
                "the files of database {name} are of one that is being restored; such files cannot be attached"
            ),
            "provision from an online source, or from kept backups",
        ),
        3009 => (
            ErrorKind::Failed,
            format!("database {name} was restored, but its history in msdb was not written"),
            "free or repair msdb on that server; the restore need not be repeated",
        ),
        WRAPPER => (
            ErrorKind::Failed,
            format!("the statement on database {name} ended early"),
            "see the error before this one in the server's log",
        ),
        _ => return None,
    };
    Some((kind, sentence, advice.to_owned()))
}

/// The backup itself.
fn media(number: u32, text: &str, context: &ErrorContext) -> Option<Meaning> {
    let backup = list(&context.files);
    Some(match number {
        3201 => {
            let (os, advice) = os_error(text);
            (ErrorKind::Io, format!("SQL Server cannot open backup {backup}{os}"), advice)
        }
        3183 | 3189 => (
            ErrorKind::Corrupt,
            format!("backup {backup} is damaged"),
            "copy it again from where it was written, or use an older one".to_owned(),
        ),
        3132 => (
            ErrorKind::NotFound,
            format!("a stripe of backup {backup} is missing"),
            match context.missing_stripes.is_empty() {
                true => "name all the files that the backup was written to".to_owned(),
                false => format!("add {}", list(&context.missing_stripes)),
            },
        ),
        33111 => (
            ErrorKind::NotAllowed,
            format!("this server has no certificate for backup {backup}"),
            "restore on it the certificate, with its private key, that the backup or its database was encrypted with"
                .to_owned(),
        ),
        3169 => (
            ErrorKind::Unsupported,
            format!("backup {backup} is of a newer version of SQL Server than this one"),
            "use an instance of that version or a newer one".to_owned(),
        ),
        _ => return None,
    })
}

/// The database's own files, and who uses them.
fn files(number: u32, text: &str, context: &ErrorContext) -> Option<Meaning> {
    let name = &context.database;
    let folder = context.data_folder.as_deref().unwrap_or("the mount base");
    Some(match number {
        3101 => (
            ErrorKind::InUse,
            match context.sessions.is_empty() {
                true => format!("database {name} is in use"),
                false => format!("database {name} is in use by {}", list(&context.sessions)),
            },
            "end these sessions".to_owned(),
        ),
        1834 | 3156 => (
            ErrorKind::InUse,
            format!("a file of database {name} would be written where another database has one"),
            format!("MOVE each file to {folder}"),
        ),
        5120 | 5123 => {
            let (os, advice) = os_error(text);
            (
                ErrorKind::Io,
                format!("SQL Server cannot open or create a file of database {name} in {folder}{os}"),
                advice,
            )
        }
        _ => return None,
    })
}

/// The operating system's error in the server's text, and what to do about it.
fn os_error(text: &str) -> (String, String) {
    let number = text.to_ascii_lowercase().find("operating system error ").and_then(|at| {
        let rest = &text[at + "operating system error ".len()..];
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        rest[..end].parse::<u32>().ok()
    });
    let advice = match number {
        Some(2 | 3) => "that path does not exist for the server: it is a path on the server's own host",
        Some(5 | 13) => "give the server's user (mssql on Linux) the right to it and to each folder above",
        Some(32) => "another program has it open",
        Some(87) => "that file system takes no O_DIRECT: put the file on one that does",
        Some(112) => "the disk is full",
        _ => "see the server's text for the operating system's error",
    };
    (
        number.map(|number| format!(" (operating system error {number})")).unwrap_or_default(),
        advice.to_owned(),
    )
}

/// The LSNs that the server's text names.
fn lsns(text: &str) -> Vec<String> {
    let digits = |part: &str| part.chars().take_while(char::is_ascii_digit).collect::<String>();
    text.split("LSN ").skip(1).map(digits).filter(|lsn| !lsn.is_empty()).collect()
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "of the statement".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> ErrorContext {
        ErrorContext {
            database: "stage".to_owned(),
            files: vec!["/b/1.trn".to_owned()],
            data_folder: Some("/mnt/s/DATA/db".to_owned()),
            sessions: vec!["51 (app)".to_owned()],
            base: Some("/b/full.bak".to_owned()),
            needed_log: Some("/b/0.trn".to_owned()),
            missing_stripes: vec!["/b/2.bak".to_owned()],
        }
    }

    /// The numbers of the adapter's list, each with what its text must name.
    const NUMBERS: [(u32, &str, &str); 29] = [
        (4320, "stage", "full or differential"),
        (WRAPPER, "stage", "error before"),
        (3101, "51 (app)", "sessions"),
        (3201, "/b/1.trn", "operating system"),
        (3159, "stage", "REPLACE"),
        (3154, "/b/1.trn", "REPLACE"),
        (3141, "stage", "REPLACE"),
        (4305, "/b/1.trn", "/b/0.trn"),
        (4326, "already", "/b/0.trn"),
        (3136, "/b/1.trn", "/b/full.bak"),
        (3117, "RESTORING", "full backup"),
        (1834, "another database", "/mnt/s/DATA/db"),
        (3156, "another database", "/mnt/s/DATA/db"),
        (5120, "/mnt/s/DATA/db", "operating system"),
        (5123, "stage", "operating system"),
        (3169, "newer", "version"),
        (1824, "attached", "backups"),
        (4330, "fork", "line"),
        (3121, "fork", "line"),
        (4335, "stop point", "finished before"),
        (4338, "stop point", "finished before"),
        (4327, "bulk-logged", "all of it"),
        (4341, "bulk-logged", "all of it"),
        (4319, "interrupted", "again"),
        (3183, "damaged", "copy"),
        (3189, "damaged", "copy"),
        (3009, "was restored", "not be repeated"),
        (3132, "stripe", "/b/2.bak"),
        (33111, "certificate", "private key"),
    ];

    #[test]
    fn each_number_has_its_sentence_its_advice_and_the_servers_text() {
        for (number, sentence, advice) in NUMBERS {
            let explained = explain(number, "server's words", &context());
            assert!(explained.sentence.contains(sentence), "{number}: {}", explained.sentence);
            assert!(explained.advice.contains(advice), "{number}: {}", explained.advice);
            assert_eq!(explained.harmless, number == 3009);
            let error = Error::from(explained);
            assert!(error.message().ends_with(&format!("\nMsg {number}: server's words")), "{error}");
            assert!(error.hint().is_some());
            let bare = explain(number, "", &ErrorContext::default());
            assert!(!bare.sentence.is_empty() && !bare.advice.is_empty());
        }
    }

    #[test]
    fn lsns_and_operating_system_errors_come_from_the_text() {
        let text = "The log in this backup set begins at LSN 39000000060800001, which is too recent to apply to the \
                    database. An earlier log backup that includes LSN 39000000058800001 can be restored.";
        let explained = explain(4305, text, &context());
        assert!(explained.sentence.contains("begins at LSN 39000000060800001"), "{}", explained.sentence);
        assert!(
            explained.advice.contains("has LSN 39000000058800001 first: /b/0.trn"),
            "{}",
            explained.advice
        );
        let text = "Unable to open the physical file \"/m/a.mdf\". Operating system error 87: \"87(The parameter is \
                    incorrect.)\".";
        let explained = explain(5120, text, &context());
        assert!(explained.sentence.ends_with("(operating system error 87)"), "{}", explained.sentence);
        assert!(explained.advice.contains("O_DIRECT"));
    }

    #[test]
    fn an_unknown_number_passes_with_its_text_alone() {
        let error = Error::from(explain(50_000, "own words", &context()));
        assert!(error.message().ends_with("Msg 50000: own words"));
        assert_eq!(error.hint(), None);
    }

    #[test]
    fn the_wrapper_is_told_only_when_there_is_no_other() {
        assert_eq!(telling(&[(WRAPPER, "x"), (3201, "y")]), Some(&(3201, "y")));
        assert_eq!(telling(&[(3201, "y"), (WRAPPER, "x")]), Some(&(3201, "y")));
        assert_eq!(telling(&[(WRAPPER, "x")]), Some(&(WRAPPER, "x")));
        assert_eq!(telling::<&str>(&[]), None);
    }
}
