//! What an instance answers to a batch, as values: the protocol turns it into tokens.

use std::time::Duration;

/// One value of a row or of a parameter, with the type that it has on the wire.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Bit(bool),
    TinyInt(u8),
    SmallInt(i16),
    Int(i32),
    BigInt(i64),
    /// `digits` is the value times ten to the `scale`.
    Numeric {
        digits: i128,
        precision: u8,
        scale: u8,
    },
    NVarChar(String),
    VarBinary(Vec<u8>),
    /// In the order in which a GUID is written.
    Guid([u8; 16]),
    /// Milliseconds since 1900-01-01T00:00:00, without a zone; `datetime` on the wire.
    DateTime(i64),
    /// As `percent_complete` is.
    Real(f32),
}

/// The type of a column: rows may hold `Null` in any of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnType {
    Bit,
    TinyInt,
    SmallInt,
    Int,
    BigInt,
    Numeric {
        precision: u8,
        scale: u8,
    },
    /// In characters; `None` is `nvarchar(max)`.
    NVarChar(Option<u16>),
    VarBinary(Option<u16>),
    Guid,
    DateTime,
    Real,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    pub kind: ColumnType,
}

/// An ERROR or INFO token, with the numbers that SQL Server gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub number: i32,
    /// Over 10 is an error.
    pub class: u8,
    pub state: u8,
    pub text: String,
    pub line: i32,
}

/// One part of an answer, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    Rows {
        columns: Vec<Column>,
        rows: Vec<Vec<Value>>,
    },
    /// Rows that a statement changed, without a result set.
    Count(u64),
    Message(Message),
    /// The session's database is another from here on.
    Database(String),
    /// The server thinks before it goes on; an attention or a cut connection ends it.
    Wait(Duration),
}

/// A named parameter of `sp_executesql`, with its `@`.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    pub name: String,
    pub value: Value,
}

/// What a client said of itself when it logged in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Login {
    pub user: String,
    pub password: String,
    pub database: String,
    pub application: String,
    pub host: String,
}

/// One logged-in session. Dropping it is the end of the connection: what it held is let go.
pub trait Session: Send {
    /// Runs one batch. `sink` takes the parts as they come, and says false when the client cancelled or is gone: the
    /// statement is then rolled back as SQL Server would.
    fn batch(&mut self, sql: &str, parameters: &[Parameter], sink: &mut dyn FnMut(Part) -> bool);

    /// The version as `major.minor.build`, for the login acknowledgement.
    fn version(&self) -> (u8, u8, u16);

    fn database(&self) -> String;
}

/// Something that sessions are opened at.
pub trait Server: Send + Sync {
    /// Error 18456 as the message when it refuses.
    fn login(&self, login: &Login) -> Result<Box<dyn Session>, Message>;
}
