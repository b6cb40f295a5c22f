//! Records of where databases are and come from: environments, the installations on them, sources, and the groups
//! that datasets, sources and tokens are in.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::records::record;
use super::{Catalog, Dataset, Record, Token};
use crate::base::Result;

/// A host on which servers run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    pub id: u64,
    /// Unique among environments: the host's name when it was first seen.
    pub name: String,
    /// The host's name now.
    pub host: String,
    /// The user that servers run as.
    pub user: String,
    pub created: Timestamp,
    /// When repositories were last looked for.
    #[serde(default)]
    pub refreshed: Option<Timestamp>,
}

/// A database installation that was found on an environment, or named by an admin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repository {
    pub id: u64,
    /// Unique among repositories; made of adapter and version when it was first seen, and kept.
    pub name: String,
    pub environment: u64,
    pub adapter: String,
    pub version: String,
    /// Where its programs are; no two repositories of an adapter share one.
    pub programs: PathBuf,
    pub user: String,
    /// An admin named it: it is looked for there beside where the adapter looks by itself.
    #[serde(default)]
    pub added: bool,
    /// Not chosen for new links and VDBs.
    #[serde(default)]
    pub disabled: bool,
    pub first_seen: Timestamp,
    pub last_seen: Timestamp,
    /// Whether it was there when it was last looked for.
    pub present: bool,
}

/// A database cluster that dSources are linked to. Its password is among the secrets, under this number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceConfig {
    pub id: u64,
    /// Unique among sources.
    pub name: String,
    /// Who of this group may use it.
    pub group: String,
    pub adapter: String,
    pub host: String,
    pub port: u16,
    pub user: String,
    /// The database that the engine connects to.
    pub database: String,
    /// How connections are secured, in the adapter's word.
    pub tls: String,
    /// A file of the host with the certificates of those who vouch for it.
    pub ca: Option<String>,
    pub created: Timestamp,
    /// What it answered when it was last asked.
    pub version: String,
    /// By which the adapter knows the cluster again, at whatever address.
    pub identity: String,
    pub size_bytes: Option<u64>,
    pub checked: Timestamp,
}

/// What shares permissions: datasets, sources and tokens name it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    pub id: u64,
    /// Unique among groups.
    pub name: String,
    pub created: Timestamp,
}

record!(Environment, "environment", 1);
record!(Repository, "repository", 1);
record!(SourceConfig, "source", 1);
record!(Group, "group", 1);

/// Makes the records of groups that are named and have none: catalogs of before there were such records, and copies
/// of them, only name groups. A group is as old as the oldest that names it.
pub(super) fn complete_groups(catalog: &Catalog) -> Result<()> {
    catalog.change(|change| {
        let datasets = change.list::<Dataset>()?.into_iter().map(|dataset| (dataset.group, dataset.created));
        let tokens = change.list::<Token>()?.into_iter().flat_map(|token| {
            let created = token.created;
            token.groups.into_iter().map(move |group| (group, created))
        });
        let mut named: BTreeMap<String, Timestamp> = BTreeMap::new();
        for (name, created) in datasets.chain(tokens) {
            let oldest = named.entry(name).or_insert(created);
            *oldest = created.min(*oldest);
        }
        for known in change.list::<Group>()? {
            named.remove(&known.name);
        }
        for (name, created) in named {
            let id = change.next_id()?;
            change.put(&Group { id, name, created })?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::base::SimStorage;
    use crate::catalog::{CATALOG_FILE, Catalog};

    fn dataset(id: u64, group: &str, created: i64) -> Dataset {
        serde_json::from_value(json!({
            "id": id, "name": format!("d{id}"), "group": group, "role": "vdb", "adapter": "none", "config": null,
            "state": "active", "created": Timestamp::from_second(created).unwrap(), "port": id, "timeflow": null,
        }))
        .unwrap()
    }

    fn groups(catalog: &Catalog) -> Vec<(String, i64)> {
        let found = catalog.list::<Group>().unwrap().into_iter();
        found.map(|group| (group.name, group.created.as_second())).collect()
    }

    #[test]
    fn an_older_catalog_gets_its_groups_when_it_is_opened() {
        let storage = SimStorage::new();
        let catalog = Catalog::open(&storage).unwrap();
        let token = Token {
            id: 7,
            name: "ci".into(),
            role: crate::catalog::TokenRole::User,
            groups: vec!["shop".into(), "ci".into()],
            created: Timestamp::from_second(5).unwrap(),
            expires: None,
            hash: String::new(),
        };
        catalog
            .change(|change| {
                change.put(&dataset(1, "shop", 30))?;
                change.put(&dataset(2, "shop", 20))?;
                change.put(&dataset(3, "mine", 10))?;
                change.put(&token)
            })
            .unwrap();
        assert_eq!(groups(&catalog), []);
        drop(catalog);
        let expected = [("ci".to_owned(), 5), ("mine".to_owned(), 10), ("shop".to_owned(), 5)];
        let catalog = Catalog::open(&storage).unwrap();
        assert_eq!(groups(&catalog), expected);
        // Once is enough, and the numbers stay.
        let before = catalog.list::<Group>().unwrap();
        drop(catalog);
        assert_eq!(Catalog::open(&storage).unwrap().list::<Group>().unwrap(), before);
    }

    #[test]
    fn a_copy_brings_back_what_is_known_of_hosts_and_sources() {
        let storage = SimStorage::new();
        let catalog = Catalog::open(&storage).unwrap();
        let time = Timestamp::from_second(9).unwrap();
        let environment = Environment {
            id: 1,
            name: "db1".into(),
            host: "db1".into(),
            user: "postgres".into(),
            created: time,
            refreshed: Some(time),
        };
        let repository = Repository {
            id: 2,
            name: "postgres-15".into(),
            environment: 1,
            adapter: "postgres".into(),
            version: "15.18".into(),
            programs: "/usr/lib/postgresql/15/bin".into(),
            user: "postgres".into(),
            added: false,
            disabled: true,
            first_seen: time,
            last_seen: time,
            present: true,
        };
        let source = SourceConfig {
            id: 3,
            name: "crm".into(),
            group: "shop".into(),
            adapter: "postgres".into(),
            host: "db2".into(),
            port: 5432,
            user: "repl".into(),
            database: "postgres".into(),
            tls: "verify-full".into(),
            ca: Some("/etc/ca.pem".into()),
            created: time,
            version: "15.18".into(),
            identity: "7".into(),
            size_bytes: Some(7),
            checked: time,
        };
        let group = Group { id: 4, name: "shop".into(), created: time };
        catalog
            .change(|change| {
                change.put(&environment)?;
                change.put(&repository)?;
                change.put(&source)?;
                change.put(&group)
            })
            .unwrap();
        catalog.back_up(&storage).unwrap();
        drop(catalog);
        crate::base::Storage::remove(&storage, CATALOG_FILE).unwrap();
        assert_eq!(Catalog::restore(&storage).unwrap(), 4);
        let catalog = Catalog::open(&storage).unwrap();
        assert_eq!(catalog.list::<Environment>().unwrap(), [environment]);
        assert_eq!(catalog.list::<Repository>().unwrap(), [repository]);
        assert_eq!(catalog.list::<SourceConfig>().unwrap(), [source]);
        assert_eq!(catalog.list::<Group>().unwrap(), [group]);
    }
}
