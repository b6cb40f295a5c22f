//! Named hook templates: a program with parameters that become values when a hook is made from it.
//!
//! A parameter is written `{{name}}`; other text between double braces stays as it is, as in `docker --format
//! '{{.ID}}'`. Invariants: every parameter that is used is declared and the other way round; a value cannot change
//! what a script does beyond the word it stands in.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::definition::{Hook, Program, Variable, is_identifier, name_problem, text_problem};
use super::point::HookPoint;
use crate::base::{Error, Result};

/// Besides letters and digits, what a value in a script may hold: nothing that a shell takes for more than itself.
const VALUE_SIGNS: &str = "_-./:@%+=,";

/// A hook without point and user, and with parameters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HookTemplate {
    pub name: String,
    /// Each parameter with what it is for.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
    pub program: Program,
    pub time_limit_seconds: u32,
    #[serde(default)]
    pub environment: BTreeMap<String, Variable>,
}

/// What a hook made from a template is called, where and as whom it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    pub name: String,
    pub point: HookPoint,
    pub run_as: Option<String>,
}

impl HookTemplate {
    /// `Invalid` names the parameter that is used and not declared, declared and not used, or whose name is none.
    pub fn check(&self) -> Result<()> {
        let refuse = |problem: String| Err(self.error(&problem));
        if let Some(problem) = name_problem(&self.name).or_else(|| self.program.problem()) {
            return refuse(problem);
        }
        if let Some(name) = self.parameters.keys().find(|name| !is_identifier(name)) {
            return refuse(format!("the parameter name {name:?} is not letters, digits and underscores"));
        }
        let used: BTreeSet<&str> = self.texts().into_iter().flat_map(parameters_in).collect();
        if let Some(name) = used.iter().find(|name| !self.parameters.contains_key(**name)) {
            return refuse(format!("uses the parameter {name}, which it does not declare"));
        }
        if let Some(name) = self.parameters.keys().find(|name| !used.contains(name.as_str())) {
            return refuse(format!("declares the parameter {name}, and does not use it"));
        }
        Ok(())
    }

    /// The hook with these values in the parameters' places. `Invalid` names a parameter that is missing, unknown, or
    /// whose value does not fit. The hook is still to be checked against its dataset.
    pub fn hook(&self, placement: Placement, values: &BTreeMap<String, String>) -> Result<Hook> {
        self.check()?;
        if let Some((name, about)) = self.parameters.iter().find(|(name, _)| !values.contains_key(*name)) {
            return Err(self.error(&format!("needs a value for the parameter {name} ({about})")));
        }
        if let Some(name) = values.keys().find(|name| !self.parameters.contains_key(*name)) {
            let known: Vec<&str> = self.parameters.keys().map(String::as_str).collect();
            return Err(self.error(&format!("has no parameter {name}; it has {}", known.join(", "))));
        }
        for (name, value) in values {
            self.check_value(name, value)?;
        }
        let program = match &self.program {
            Program::Script(text) => Program::Script(filled(text, values)),
            Program::Command(words) => {
                Program::Command(words.iter().map(|word| filled(word, values)).collect())
            }
        };
        let Placement { name, point, run_as } = placement;
        let (time_limit_seconds, environment) = (self.time_limit_seconds, self.environment.clone());
        Ok(Hook { name, point, program, run_as, time_limit_seconds, environment })
    }

    fn check_value(&self, name: &str, value: &str) -> Result<()> {
        let script = matches!(self.program, Program::Script(_));
        let strange = |c: &char| !c.is_ascii_alphanumeric() && !VALUE_SIGNS.contains(*c);
        if script && value.is_empty() {
            return Err(self.error(&format!("the value of {name} is empty")));
        }
        if let Some(c) = value.chars().find(strange).filter(|_| script) {
            return Err(self.error(&format!(
                "the value of {name} holds {c:?}, and may hold letters, digits and {VALUE_SIGNS} in a script; give \
                 other values as a variable"
            )));
        }
        match text_problem(&format!("the value of {name}"), value) {
            Some(problem) => Err(self.error(&problem)),
            None => Ok(()),
        }
    }

    fn texts(&self) -> Vec<&str> {
        match &self.program {
            Program::Script(text) => vec![text],
            Program::Command(words) => words.iter().map(String::as_str).collect(),
        }
    }

    fn error(&self, problem: &str) -> Error {
        Error::invalid(format!("hook template {:?}: {problem}", self.name))
    }
}

/// Text before the next parameter, its name, and the text after it.
fn next_parameter(text: &str) -> Option<(&str, &str, &str)> {
    let mut from = 0;
    loop {
        let open = from + text[from..].find("{{")?;
        let inside = open + 2;
        let close = inside + text[inside..].find("}}")?;
        let name = text[inside..close].trim();
        if is_identifier(name) {
            return Some((&text[..open], name, &text[close + 2..]));
        }
        from = open + 1;
    }
}

fn parameters_in(mut text: &str) -> Vec<&str> {
    let mut names = Vec::new();
    while let Some((_, name, after)) = next_parameter(text) {
        names.push(name);
        text = after;
    }
    names
}

/// Values are put in once: what stands in a value is not looked at again.
fn filled(mut text: &str, values: &BTreeMap<String, String>) -> String {
    let mut filled = String::with_capacity(text.len());
    while let Some((before, name, after)) = next_parameter(text) {
        filled.push_str(before);
        filled.push_str(values.get(name).map_or("", String::as_str));
        text = after;
    }
    filled + text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(program: Program, parameters: &[&str]) -> HookTemplate {
        HookTemplate {
            name: "notify".into(),
            parameters: parameters.iter().map(|name| ((*name).to_owned(), "for a test".to_owned())).collect(),
            program,
            time_limit_seconds: 30,
            environment: BTreeMap::new(),
        }
    }

    fn script(text: &str, parameters: &[&str]) -> HookTemplate {
        template(Program::Script(text.into()), parameters)
    }

    fn made(template: &HookTemplate, values: &[(&str, &str)]) -> Result<Program> {
        let values = values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let placement = Placement { name: "n".into(), point: HookPoint::PostStart, run_as: None };
        template.hook(placement, &values).map(|hook| hook.program)
    }

    #[test]
    fn parameters_become_values() {
        let template = script("curl {{url}}/{{ url }}?{{team}} '{{.ID}}' {{", &["url", "team"]);
        let program = made(&template, &[("url", "https://h:1/a"), ("team", "db_ops")]).unwrap();
        assert_eq!(program, Program::Script("curl https://h:1/a/https://h:1/a?db_ops '{{.ID}}' {{".into()));
        let words = Program::Command(vec!["/bin/echo".into(), "{{text}}!".into()]);
        let program = made(&template_of(words), &[("text", "a b; {{text}} $(c)")]).unwrap();
        assert_eq!(program, Program::Command(vec!["/bin/echo".into(), "a b; {{text}} $(c)!".into()]));
    }

    fn template_of(program: Program) -> HookTemplate {
        template(program, &["text"])
    }

    #[test]
    fn a_definition_is_checked() {
        let problem = |template: HookTemplate| template.check().unwrap_err().message().to_owned();
        assert!(
            problem(script("{{host}}", &[])).contains("uses the parameter host, which it does not declare")
        );
        assert!(
            problem(script("true", &["host"])).contains("declares the parameter host, and does not use it")
        );
        assert!(problem(script("{{a-b}}", &["a-b"])).contains("\"a-b\" is not letters"));
        assert!(problem(script("", &[])).contains("the script is empty"));
    }

    #[test]
    fn values_are_checked_by_name() {
        let template = script("ping {{host}}", &["host"]);
        let problem = |values: &[(&str, &str)]| made(&template, values).unwrap_err().message().to_owned();
        assert!(problem(&[]).contains("\"notify\": needs a value for the parameter host (for a test)"));
        assert!(problem(&[("host", "a"), ("port", "1")]).contains("has no parameter port; it has host"));
        assert!(problem(&[("host", "a; rm -rf b")]).contains("the value of host holds ';'"));
        assert!(problem(&[("host", "a\nb")]).contains("the value of host holds '\\n'"));
        assert!(problem(&[("host", "")]).contains("the value of host is empty"));
    }
}
