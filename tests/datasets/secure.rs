//! A source that takes nothing but TLS, and one that is not who it should be.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::common::postgres::give;
use crate::stage::{Stage, free_port};

/// A source with a certificate for 127.0.0.1, that lets nobody in over the network without TLS.
fn stage() -> Stage {
    let stage = Stage::with_settings(|fixture| {
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        let other = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        let (certificate, key) = (fixture.path("source.pem"), fixture.path("source.key"));
        fs::write(&certificate, made.cert.pem()).unwrap();
        fs::write(fixture.path("other.pem"), other.cert.pem()).unwrap();
        fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        give(&key);
        let rules = "local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n\
                     hostssl replication all 127.0.0.1/32 scram-sha-256\n";
        fs::write(fixture.path("source").join("pg_hba.conf"), rules).unwrap();
        format!("ssl = on\nssl_cert_file = '{}'\nssl_key_file = '{}'\n", certificate.display(), key.display())
    });
    stage.fixture.ok(["status"]);
    stage
}

#[test]
fn a_source_is_followed_over_tls_and_proves_who_it_is() {
    let stage = stage();
    let file = |name: &str| stage.fixture.path(name).to_str().unwrap().to_owned();
    let (port, staging) = (stage.source.port().to_string(), free_port().to_string());
    let link = |mode: &str, ca: &str| {
        let words = ["dsource", "link", "postgres", "--name", "shop", "--initiated-backup"];
        let source = ["--source-user", "repl", "--source-port", &port, "--staging-port", &staging];
        let tls: &[&str] = match ca {
            "" => &["--source-tls", mode],
            ca => &["--source-tls", mode, "--source-ca", ca],
        };
        stage.run_all(words.iter().chain(&source).chain(tls).copied())
    };
    link("disable", "").fails_with(12, &["no pg_hba.conf entry", "with TLS or without"]);
    link("verify-full", "").fails_with(2, &["--source-ca"]);
    link("verify-full", &file("other.pem")).fails_with(1, &["certificate"]);
    link("require", &file("source.pem")).fails_with(2, &["verify-full"]);
    let run = link("verify-full", &file("source.pem"));
    assert_eq!(run.status, 0, "{run:?}\n{}", stage.daemon_log());
    let encrypted = "SELECT count(*) FROM pg_stat_replication JOIN pg_stat_ssl USING (pid) WHERE ssl";
    assert_eq!(stage.source.number(encrypted), 1);
    stage.source.query("CREATE TABLE later AS SELECT 1");
    stage.ok(["dsource", "snapshot", "shop"]);

    // Another authority is tried before it replaces the one that works.
    let run = stage.run(["dsource", "configure", "shop", "--source-ca", &file("other.pem")]);
    run.fails_with(1, &["certificate"]);
    stage.ok(["dsource", "configure", "shop", "--source-tls", "require"]);
    stage.ok(["dsource", "snapshot", "shop"]);
    assert_eq!(stage.source.number(encrypted), 1);
}
