//! Clients of others: what they send of themselves must be understood, and what they read must be what was sent.

use super::scripted::*;
use stillpoint_tds_server::protocol::Encryption;

#[test]
fn probe() {
    let (script, running) = start(Encryption::Offered);
    script.answer("SELECT all\n", vec![all_types()]);
    println!("PORT {}", running.port());
    let seconds: u64 = std::env::var("PROBE").unwrap().parse().unwrap();
    std::thread::sleep(std::time::Duration::from_secs(seconds));
    for seen in script.seen() {
        println!("{seen:?}");
    }
    for entry in running.faults().log() {
        println!("{entry:?}");
    }
}
