//! What a script is given, and what is kept of what it prints.

use std::collections::BTreeMap;
use std::fs;

use super::super::{Limits, Variable};
use super::{Bench, command, script};
use crate::base::ErrorKind;

#[test]
fn output_comes_in_order_and_by_line() {
    let mut bench = Bench::new();
    let outcome = bench.run(&script("echo one; echo two >&2; printf 'three\\n\\nfour'")).unwrap();
    assert_eq!(bench.lines, ["one", "two", "three", "", "four"]);
    assert_eq!((outcome.lines, outcome.output_cut), (5, false));
}

#[test]
fn nothing_of_this_process_is_in_the_environment() {
    let mut bench = Bench::new();
    bench.variables = BTreeMap::from([
        ("STAGING_DATABASE_NAME".into(), "shop staging".into()),
        ("MODE".into(), "of the engine".into()),
    ]);
    bench.secrets.insert("TOKEN", "hunter2");
    let mut hook = command(&["env"]);
    hook.environment = BTreeMap::from([
        ("MODE".into(), Variable::Value("of the hook".into())),
        ("LEVEL".into(), Variable::Value("3".into())),
        ("TOKEN".into(), Variable::Secret),
    ]);
    bench.run(&hook).unwrap();
    let (run, mut others): (Vec<String>, Vec<String>) =
        bench.lines.iter().cloned().partition(|line| line.starts_with("STILLPOINT_HOOK_RUN="));
    others.retain(|line| !line.starts_with("HOME="));
    others.sort();
    assert_eq!(
        others,
        [
            "LANG=C.UTF-8",
            "LEVEL=3",
            "MODE=of the engine",
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "STAGING_DATABASE_NAME=shop staging",
            "TOKEN=***"
        ]
    );
    assert_eq!(run.len(), 1);
    assert_eq!(bench.lines.len(), 8);
}

#[test]
fn a_script_has_no_input_and_stands_at_the_root() {
    let mut bench = Bench::new();
    bench.run(&script("cat; pwd")).unwrap();
    assert_eq!(bench.lines, ["/"]);
}

#[test]
fn secrets_reach_the_script_and_not_the_log() {
    let mut bench = Bench::new();
    bench.secrets.insert("PASSWORD", "correct horse battery");
    bench.secrets.insert("OTHER", "of another hook");
    let copy = bench.path("copy");
    let mut hook = script(&format!(
        "printf '%s' \"$PASSWORD\" > {}\n\
         echo \"is $PASSWORD\"; printf 'correct hor'; sleep 0.3; echo 'se battery' >&2\n\
         echo of another hook; echo \"OTHER=$OTHER\"; exit 1",
        copy.display()
    ));
    hook.environment = BTreeMap::from([("PASSWORD".into(), Variable::Secret)]);
    let error = bench.run(&hook).unwrap_err();
    assert_eq!(fs::read_to_string(copy).unwrap(), "correct horse battery");
    assert_eq!(bench.lines, ["is ***", "***", "***", "OTHER="]);
    assert!(error.message().ends_with("\n  is ***\n  ***\n  ***\n  OTHER="), "{error}");
}

#[test]
fn a_secret_without_a_value_is_named() {
    let mut bench = Bench::new();
    let mut hook = script("true");
    hook.environment = BTreeMap::from([("TOKEN".into(), Variable::Secret)]);
    let error = bench.run(&hook).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Precondition);
    assert!(error.message().contains("needs the secret TOKEN"), "{error}");
}

#[test]
fn a_status_other_than_0_fails_with_the_last_lines() {
    let mut bench = Bench::new();
    let error = bench.run(&script("seq 1 100; echo 'no such table' >&2; exit 3")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Failed);
    let message = error.message();
    assert!(
        message.starts_with("hook \"load\" at pre_sync ended with status 3; it printed last:\n  82\n"),
        "{error}"
    );
    assert!(message.ends_with("\n  100\n  no such table"), "{error}");
    assert_eq!(bench.lines.len(), 101);
    let error = bench.run(&script("kill -9 $$")).unwrap_err();
    assert_eq!(error.message(), "hook \"load\" at pre_sync was ended by signal 9; it printed nothing");
}

#[test]
fn a_flood_of_output_is_bounded() {
    let limits = Limits { line_bytes_max: 100, output_bytes_max: 10_000, ..Limits::default() };
    let mut bench = Bench::with_limits(limits);
    let outcome = bench.run(&script("yes 'many lines' | head -c 20000000")).unwrap();
    assert!(outcome.output_cut);
    let bytes: usize = bench.lines.iter().map(String::len).sum();
    assert!(bytes < 11_000, "{bytes}");
    assert!(bench.lines.last().unwrap().contains("output is cut here"));
    // One line without an end.
    bench.run(&script("head -c 20000000 /dev/zero | tr '\\0' x; echo; echo after")).unwrap();
    assert_eq!(bench.lines[0].chars().filter(|c| *c == 'x').count(), 100);
    assert!(bench.lines[0].ends_with("(19999900 more bytes)"));
    assert_eq!(bench.lines[1], "after");
}

#[test]
fn the_first_line_of_a_script_chooses_its_interpreter() {
    let mut bench = Bench::new();
    bench
        .run(&script("#!/usr/bin/env -S bash -u\necho \"$BASH_VERSION\" | wc -l; echo ${0##*/hook-} | wc -c"))
        .unwrap();
    assert_eq!(bench.lines, ["1", "33"]);
    bench.run(&script("#!/bin/cat\nits own text")).unwrap();
    assert_eq!(bench.lines, ["#!/bin/cat", "its own text"]);
}

#[test]
fn what_cannot_be_run_is_named() {
    let mut bench = Bench::new();
    let error = bench.run(&script("#!/usr/bin/pwsh -File\nWrite-Host")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Precondition);
    assert!(
        error.message().contains("its interpreter \"/usr/bin/pwsh\" is not a program on this host"),
        "{error}"
    );
    let error = bench.run(&command(&["no-such-program-here", "a"])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Precondition);
    assert!(error.message().contains("there is no program \"no-such-program-here\""), "{error}");
    let error = bench.run(&command(&["/etc/passwd"])).unwrap_err();
    assert!(error.message().contains("\"/etc/passwd\" is not a program that its user may run"), "{error}");
    let mut hook = script("true");
    hook.run_as = Some("nobody-at-all".into());
    let error = bench.run(&hook).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.message().contains("hook \"load\": there is no user nobody-at-all"), "{error}");
}
