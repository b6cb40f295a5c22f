//! Time limits, cancels, and what is left of a run.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::super::{Limits, Runner};
use super::{Bench, is_alive, script};
use crate::base::{ErrorKind, SystemClock, SystemRandom};

/// Two processes of the group that would go on for ever, one deaf to SIGTERM, and one in a session of its own that
/// outlived its parent.
fn family(bench: &Bench) -> String {
    let folder = bench.folder.path().display();
    format!(
        "cd {folder}\n\
         sleep 1000 & echo $! > plain\n\
         sh -c 'trap \"\" TERM; echo $$ > deaf; while :; do sleep 1; done' &\n\
         (setsid sh -c 'echo $$ > away; exec sleep 1000' &)\n\
         until [ -s deaf ] && [ -s away ]; do sleep 0.05; done\n"
    )
}

fn short_grace() -> Bench {
    Bench::with_limits(Limits { grace: Duration::from_millis(500), ..Limits::default() })
}

#[test]
fn the_time_limit_ends_the_whole_family() {
    let mut bench = short_grace();
    let error =
        bench.run(&script(&format!("{}echo working; echo > leap; wait", family(&bench)))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Failed);
    assert_eq!(
        error.message(),
        "hook \"load\" at pre_sync ran longer than its time limit of 3600 s and was ended; it printed last:\n  working"
    );
    for name in ["plain", "deaf", "away"] {
        assert!(!is_alive(bench.pid(name)), "{name} is alive");
    }
}

#[test]
fn a_cancel_ends_it_and_lets_it_clean_up() {
    let mut bench = Bench::new();
    let started = bench.path("started");
    let text = format!(
        "trap 'echo cleaned up; exit 0' TERM\necho > {}\nwhile :; do sleep 0.1; done",
        started.display()
    );
    let cancel = AtomicBool::new(false);
    let error = thread::scope(|scope| {
        scope.spawn(|| {
            while !started.exists() {
                thread::sleep(Duration::from_millis(10));
            }
            cancel.store(true, Ordering::Relaxed);
        });
        bench.run_until(&script(&text), &cancel).unwrap_err()
    });
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    let message = error.message();
    assert!(message.starts_with("hook \"load\" at pre_sync was cancelled; it printed last:\n"), "{error}");
    assert!(message.ends_with("\n  cleaned up"), "{error}");
}

#[test]
fn a_failure_ends_what_it_left() {
    let mut bench = short_grace();
    let error = bench.run(&script(&format!("{}exit 4", family(&bench)))).unwrap_err();
    assert!(error.message().contains("ended with status 4"), "{error}");
    for name in ["plain", "deaf", "away"] {
        assert!(!is_alive(bench.pid(name)), "{name} is alive");
    }
}

#[test]
fn a_success_leaves_only_sessions_of_their_own() {
    let mut bench = short_grace();
    // All three hold the pipe open; none is waited for.
    bench.run(&script(&format!("{}echo done", family(&bench)))).unwrap();
    assert_eq!(bench.lines, ["done"]);
    assert!(!is_alive(bench.pid("plain")) && !is_alive(bench.pid("deaf")));
    let away = bench.pid("away");
    assert!(is_alive(away));
    kill_process(Pid::from_raw(away).unwrap(), Signal::KILL).unwrap();
}

#[test]
fn who_is_still_on_its_way_out_of_the_group_is_left_alone() {
    let mut bench = short_grace();
    let text = format!(
        "cd {}\nleader=$$\n\
         (until grep -q ') Z' /proc/$leader/stat; do :; done; exec setsid sleep 1000) >/dev/null 2>&1 &\n\
         echo $! > leaving",
        bench.folder.path().display()
    );
    bench.run(&script(&text)).unwrap();
    let leaving = bench.pid("leaving");
    assert!(is_alive(leaving));
    kill_process(Pid::from_raw(leaving).unwrap(), Signal::KILL).unwrap();
}

#[test]
fn what_is_printed_behind_the_end_is_kept() {
    let mut bench = Bench::new();
    bench.run(&script("#!/bin/bash\nexec > >(sleep 0.2; sed 's/^/> /')\necho late")).unwrap();
    assert_eq!(bench.lines, ["> late"]);
}

#[test]
fn a_script_that_prints_without_end_is_ended_too() {
    let mut bench = short_grace();
    let leap = bench.path("leap");
    let text = format!("trap '' TERM; echo > {}; while :; do echo x; done", leap.display());
    let error = bench.run(&script(&text)).unwrap_err();
    assert!(error.message().contains("ran longer than its time limit"), "{error}");
}

#[test]
fn a_new_runner_ends_what_a_killed_process_left() {
    let mut bench = short_grace();
    let (folder, ready) = (bench.path("run"), bench.path("ready"));
    let text = format!("{}echo > ready; wait", family(&bench));
    let cancel = AtomicBool::new(false);
    thread::scope(|scope| {
        let running = scope.spawn(|| {
            while !ready.exists() {
                thread::sleep(Duration::from_millis(10));
            }
            // As after a SIGKILL of the first: nobody watches, and the file is there.
            let limits = Limits { grace: Duration::from_millis(500), ..Limits::default() };
            Runner::new(&folder, Arc::new(SystemClock), Arc::new(SystemRandom), limits).unwrap();
        });
        let error = bench.run_until(&script(&text), &cancel).unwrap_err();
        assert!(error.message().contains("was ended by signal 15"), "{error}");
        running.join().unwrap();
    });
    for name in ["plain", "deaf", "away"] {
        assert!(!is_alive(bench.pid(name)), "{name} is alive");
    }
}

#[test]
fn closed_output_is_no_end() {
    let mut bench = Bench::new();
    let file = bench.path("written");
    let text = format!("exec >&- 2>&-; sleep 0.3; echo later > {}", file.display());
    bench.run(&script(&text)).unwrap();
    assert_eq!(fs::read_to_string(file).unwrap(), "later\n");
}
