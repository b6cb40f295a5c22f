//! Clients of others: what they send of themselves must be understood, and what they read must be what was sent.

use super::scripted::*;
use stillpoint_tds_server::protocol::Encryption;

