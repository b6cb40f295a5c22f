//! `stillpoint bench` through the real binary, in tiny sizes: that it measures and cleans up, not how fast. The
//! mounted ones need root and /dev/fuse.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::fs;

use common::{Fixture, Run, mounts_below, stillpoint};
use serde_json::Value;

const TINY: [&str; 9] =
    ["--output", "json", "--size", "1MiB", "--seconds", "1", "--runs", "1", "--keep-caches"];

fn names(report: &Value, list: &str) -> Vec<String> {
    let results = report[list].as_array().unwrap();
    results.iter().map(|result| result["test"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn plain_folders_are_compared_and_left_empty() {
    let (folder, beneath) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut command = stillpoint();
    command.arg("bench").arg(folder.path()).arg("--beneath").arg(beneath.path());
    let report = Run::of(command.args(TINY).args(["--only", "scan,snapshot-clone"])).json();
    assert_eq!(names(&report, "results"), ["scan-cold", "scan-warm"]);
    assert_eq!(names(&report, "skipped"), ["snapshot-clone"]);
    let scan = &report["results"][0];
    for side in ["mount", "beneath"] {
        for figure in ["iops", "mib_per_second", "p50_us", "p95_us", "p99_us", "max_us"] {
            assert!(scan[side][figure].as_f64().unwrap() > 0.0, "{figure} in {scan}");
        }
    }
    assert!(scan["ratio"].as_f64().unwrap() > 0.0);
    for left in [folder.path(), beneath.path()] {
        assert_eq!(fs::read_dir(left).unwrap().count(), 0);
    }
}

#[test]
fn a_store_is_measured_on_a_volume_of_its_own() {
    let fixture = Fixture::mounted();
    fixture.ok(["volume", "create", "mine"]);
    let mut command = stillpoint();
    command.arg("bench").arg(fixture.mount_path().join("mine")).args(TINY);
    let report = Run::of(command.args(["--only", "append,overwrite"])).json();
    assert_eq!(names(&report, "results"), ["append-sync", "overwrite-after-snapshot"]);
    assert!(report["skipped"].as_array().unwrap().is_empty(), "{report}");
    let volumes = fixture.json(["volume", "list"]);
    assert_eq!(volumes.as_array().unwrap().len(), 1, "{volumes}");
    assert_eq!(volumes[0]["logical_bytes"], 0);
    assert!(fixture.json(["snapshot", "list"]).as_array().unwrap().is_empty());
}

#[test]
fn a_store_that_is_not_mounted_is_mounted_for_the_time_being() {
    let fixture = Fixture::new();
    let mut command = stillpoint();
    command.arg("--store").arg(fixture.store_path()).arg("bench").args(TINY);
    let report = Run::of(command.args(["--only", "log-write"])).json();
    assert_eq!(names(&report, "results"), ["log-write-sync"]);
    assert!(report["results"][0]["ratio"].as_f64().unwrap() > 0.0);
    assert!(!std::path::Path::new(report["mount"].as_str().unwrap()).exists());
    assert!(mounts_below(fixture.folder.path()).is_empty());
    assert!(fixture.json(["volume", "list"]).as_array().unwrap().is_empty());
}

#[test]
fn what_cannot_be_measured_is_a_usage_error() {
    Run::of(stillpoint().arg("bench")).fails_with(2, &["nothing to measure"]);
    let folder = tempfile::tempdir().unwrap();
    let mut command = stillpoint();
    command.arg("bench").arg(folder.path()).args(["--only", "everything"]);
    Run::of(&mut command).fails_with(2, &["everything", "scan-cold"]);
}
