//! What `pg_controldata` says of a cluster.

use std::collections::BTreeMap;
use std::path::Path;

use super::program::Programs;
use crate::base::{Error, ErrorKind, Result};

/// The fields of `pg_control`, by the names `pg_controldata` prints in the C locale.
#[derive(Clone, Debug)]
pub(super) struct ControlData(BTreeMap<String, String>);

impl ControlData {
    /// Reads the control file of a cluster, running or not.
    pub(super) fn read(programs: &Programs, data: &Path) -> Result<Self> {
        let output = programs
            .command("pg_controldata")
            .arg("-D")
            .arg(data)
            .output()
            .map_err(|e| Error::io("run", "pg_controldata", e))?;
        let said = String::from_utf8_lossy(&output.stdout);
        // Its warning about a checksum that does not match goes to stdout, with status 0.
        if !output.status.success() || said.contains("WARNING:") {
            let errors = String::from_utf8_lossy(&output.stderr);
            let first = said.lines().find(|line| line.contains("WARNING")).unwrap_or_default();
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!("pg_controldata refuses {}: {first}{}", data.display(), errors.trim()),
            ));
        }
        Ok(Self::parse(&said))
    }

    fn parse(text: &str) -> Self {
        let fields = text.lines().filter_map(|line| line.split_once(':'));
        Self(fields.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())).collect())
    }

    /// A field that every version has.
    pub(super) fn field(&self, name: &str) -> Result<&str> {
        self.0
            .get(name)
            .map(String::as_str)
            .ok_or_else(|| Error::new(ErrorKind::Unsupported, format!("pg_controldata tells no {name:?}")))
    }

    pub(super) fn number<T: std::str::FromStr>(&self, name: &str) -> Result<T> {
        let text = self.field(name)?;
        text.parse().map_err(|_| {
            Error::new(ErrorKind::Unsupported, format!("pg_controldata tells {text:?} as {name:?}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read() {
        let text = "pg_control version number:            1300\n\
                    Database cluster state:               in archive recovery\n\
                    Time of latest checkpoint:            Sat Nov 21 10:00:00 2026\n";
        let control = ControlData::parse(text);
        assert_eq!(control.field("Database cluster state").unwrap(), "in archive recovery");
        assert_eq!(control.field("Time of latest checkpoint").unwrap(), "Sat Nov 21 10:00:00 2026");
        assert_eq!(control.number::<u32>("pg_control version number").unwrap(), 1300);
        assert_eq!(control.field("nothing").unwrap_err().kind(), ErrorKind::Unsupported);
        assert!(control.number::<u32>("Database cluster state").is_err());
    }
}
