//! What a call of a procedure comes to: a statement with its parameters to run, a handle to give back, or an error that
//! SQL Server has for it. Only the procedures that drivers use to run and prepare statements are known.

use std::collections::HashMap;

use super::answer::Returned;
use super::error::PREPARED_MAX;
use super::request::{Argument, Call, Procedure};
use crate::reply::{Message, Parameter, Value};

/// Procedures that have a number; those of cursors are known by name only to be refused by it.
const NUMBERED: [&str; 15] = [
    "sp_cursor",
    "sp_cursoropen",
    "sp_cursorprepare",
    "sp_cursorexecute",
    "sp_cursorprepexec",
    "sp_cursorunprepare",
    "sp_cursorfetch",
    "sp_cursoroption",
    "sp_cursorclose",
    "sp_executesql",
    "sp_prepare",
    "sp_execute",
    "sp_prepexec",
    "sp_prepexecrpc",
    "sp_unprepare",
];
/// Characters of a statement that an error repeats.
const QUOTED_CHARACTERS_MAX: usize = 128;

/// What to do for a call.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Plan {
    pub(super) statement: Option<Statement>,
    pub(super) returned: Option<Returned>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Statement {
    pub(super) sql: String,
    pub(super) parameters: Vec<Parameter>,
}

/// A statement that a client prepared.
#[derive(Clone, Debug)]
struct Template {
    sql: String,
    /// Declared parameters, in order, each with its `@`.
    names: Vec<String>,
}

/// The prepared statements of a connection.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    templates: HashMap<i32, Template>,
    last_handle: i32,
}

impl Prepared {
    /// # Errors
    ///
    /// The message that SQL Server would give for this call.
    pub(super) fn plan(&mut self, call: Call) -> Result<Plan, Message> {
        let name = match call.procedure {
            Procedure::Name(name) => name,
            Procedure::Id(id) => match usize::from(id).checked_sub(1).and_then(|index| NUMBERED.get(index)) {
                Some(name) => (*name).to_owned(),
                None => return Err(not_found(&format!("#{id}"))),
            },
        };
        let mut arguments = call.arguments.into_iter();
        match bare(&name).to_ascii_lowercase().as_str() {
            "sp_executesql" => {
                let sql = text(&name, "@stmt", arguments.next())?;
                let names = match arguments.next() {
                    Some(declared) => declared_names(&text(&name, "@params", Some(declared))?),
                    None => Vec::new(),
                };
                let statement = Template { sql, names }.bind(&name, arguments)?;
                Ok(Plan { statement: Some(statement), returned: None })
            }
            "sp_prepare" => {
                let (template, returned_name) = template(&name, &mut arguments)?;
                let value = self.keep(template)?;
                Ok(Plan { statement: None, returned: Some(Returned { name: returned_name, value }) })
            }
            "sp_prepexec" => {
                let (template, returned_name) = template(&name, &mut arguments)?;
                let statement = template.bind(&name, arguments)?;
                let value = self.keep(template)?;
                let returned = Some(Returned { name: returned_name, value });
                Ok(Plan { statement: Some(statement), returned })
            }
            "sp_execute" => {
                let handle = handle(&name, arguments.next())?;
                let template = self.templates.get(&handle).ok_or_else(|| no_handle(handle))?;
                Ok(Plan { statement: Some(template.bind(&name, arguments)?), returned: None })
            }
            "sp_unprepare" => {
                let handle = handle(&name, arguments.next())?;
                self.templates.remove(&handle).ok_or_else(|| no_handle(handle))?;
                Ok(Plan { statement: None, returned: None })
            }
            _ => Err(not_found(&name)),
        }
    }

    fn keep(&mut self, template: Template) -> Result<i32, Message> {
        if self.templates.len() >= PREPARED_MAX {
            let text =
                format!("This connection has {PREPARED_MAX} prepared statements, and may have no more.");
            return Err(error(701, text));
        }
        self.last_handle += 1;
        self.templates.insert(self.last_handle, template);
        Ok(self.last_handle)
    }
}

impl Template {
    /// Gives each value the name that it was sent or declared with.
    fn bind(&self, procedure: &str, arguments: impl Iterator<Item = Argument>) -> Result<Statement, Message> {
        let mut parameters = Vec::new();
        for (place, argument) in arguments.enumerate() {
            let name = if argument.name.is_empty() {
                match self.names.get(place) {
                    Some(name) => name.clone(),
                    None => {
                        let text =
                            format!("Procedure or function {procedure} has too many arguments specified.");
                        return Err(error(8144, text));
                    }
                }
            } else {
                argument.name
            };
            if argument.is_output {
                let text = format!(
                    "The formal parameter \"{name}\" was not declared as an OUTPUT parameter, but the actual parameter \
                     passed in requested output."
                );
                return Err(error(8162, text));
            }
            parameters.push(Parameter { name, value: argument.value });
        }
        let is_given = |name: &String| parameters.iter().any(|given| given.name.eq_ignore_ascii_case(name));
        if let Some(missing) = self.names.iter().find(|name| !is_given(name)) {
            let sql: String = self.sql.chars().take(QUOTED_CHARACTERS_MAX).collect();
            let text = format!(
                "The parameterized query '{sql}' expects the parameter '{missing}', which was not supplied."
            );
            return Err(error(8178, text));
        }
        Ok(Statement { sql: self.sql.clone(), parameters })
    }
}

/// The arguments that `sp_prepare` and `sp_prepexec` begin with, and the name of the first.
fn template(
    name: &str,
    arguments: &mut impl Iterator<Item = Argument>,
) -> Result<(Template, String), Message> {
    let returned = arguments.next().ok_or_else(|| expects(name, "@handle"))?.name;
    let names = declared_names(&text(name, "@params", arguments.next())?);
    let sql = text(name, "@stmt", arguments.next())?;
    Ok((Template { sql, names }, returned))
}

fn text(procedure: &str, name: &str, argument: Option<Argument>) -> Result<String, Message> {
    match argument.map(|argument| argument.value) {
        Some(Value::NVarChar(text)) => Ok(text),
        // No declaration at all is a null.
        Some(Value::Null) if name == "@params" => Ok(String::new()),
        Some(_) => {
            let text = format!("Procedure expects parameter '{name}' of type 'ntext/nchar/nvarchar'.");
            Err(error(214, text))
        }
        None => Err(expects(procedure, name)),
    }
}

fn handle(procedure: &str, argument: Option<Argument>) -> Result<i32, Message> {
    match argument.map(|argument| argument.value) {
        Some(Value::Int(handle)) => Ok(handle),
        Some(_) => Err(error(214, "Procedure expects parameter '@handle' of type 'int'.".to_owned())),
        None => Err(expects(procedure, "@handle")),
    }
}

/// The names in a declaration such as `@P1 int, @P2 decimal(10, 2)`.
fn declared_names(declaration: &str) -> Vec<String> {
    let mut depth = 0usize;
    let is_comma = |c: char| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    };
    let parts = declaration.split(is_comma).filter_map(|part| part.split_whitespace().next());
    parts.filter(|name| name.starts_with('@')).map(str::to_owned).collect()
}

/// A name without `sys.`, `master..` or brackets before it.
fn bare(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name).trim_matches(['[', ']'])
}

fn error(number: i32, text: String) -> Message {
    Message { number, class: 16, state: 1, text, line: 1 }
}

fn expects(procedure: &str, name: &str) -> Message {
    let text =
        format!("Procedure or function '{procedure}' expects parameter '{name}', which was not supplied.");
    error(201, text)
}

fn no_handle(handle: i32) -> Message {
    error(8179, format!("Could not find prepared statement with handle {handle}."))
}

fn not_found(name: &str) -> Message {
    Message { state: 62, ..error(2812, format!("Could not find stored procedure '{name}'.")) }
}
