//! Tokens: who may use the API over the network, and for what. Of a token's secret only a hash is kept.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Record;

/// The right to use the API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    pub id: u64,
    /// Unique among tokens.
    pub name: String,
    pub role: TokenRole,
    /// The groups that the role is for; none: all of them, which only an admin or a viewer has.
    pub groups: Vec<String>,
    pub created: Timestamp,
    /// Not valid from then on; absent: valid until it is revoked.
    pub expires: Option<Timestamp>,
    /// BLAKE3 of the secret's 32 bytes, in hexadecimal. The secret is random, so no salt is needed.
    pub hash: String,
}

/// What a token is for. Each one may do what the ones before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenRole {
    /// Reads.
    Viewer,
    /// Makes and runs VDBs.
    User,
    /// Everything on datasets.
    Operator,
    /// Everything, tokens too; not bound to groups.
    Admin,
}

impl Record for Token {
    const KIND: &'static str = "token";
    const VERSION: u32 = 1;

    fn id(&self) -> u64 {
        self.id
    }
}
