//! The catalog over simulated storage: transactions, versions, and what a crash leaves.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::*;
use crate::base::SimStorage;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Old {
    id: u64,
    name: String,
}

impl Record for Old {
    const KIND: &'static str = "thing";
    const VERSION: u32 = 1;

    fn id(&self) -> u64 {
        self.id
    }
}

/// The same kind two versions later.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct New {
    id: u64,
    title: String,
    size: u64,
}

impl Record for New {
    const KIND: &'static str = "thing";
    const VERSION: u32 = 3;

    fn id(&self) -> u64 {
        self.id
    }

    fn upgrade(from: u32, mut value: Value) -> Result<Value> {
        match from {
            1 => value["title"] = value["name"].take(),
            _ => value["size"] = json!(7),
        }
        Ok(value)
    }
}

fn old(id: u64) -> Old {
    Old { id, name: format!("name {id}") }
}

#[test]
fn a_change_is_all_or_nothing() {
    let storage = Arc::new(SimStorage::new());
    let catalog = Catalog::open(&*storage).unwrap();
    let id = catalog
        .change(|change| {
            let id = change.next_id()?;
            change.put(&old(id))?;
            assert_eq!(change.list::<Old>()?, [old(id)]);
            Ok(id)
        })
        .unwrap();
    let failed: Result<()> = catalog.change(|change| {
        let other = change.next_id()?;
        change.put(&old(other))?;
        change.remove::<Old>(id)?;
        Err(Error::invalid("no"))
    });
    assert!(failed.is_err());
    assert_eq!(catalog.list::<Old>().unwrap(), [old(id)]);
    drop(catalog);
    let catalog = Catalog::open(&*storage).unwrap();
    assert_eq!(catalog.get::<Old>(id).unwrap(), Some(old(id)));
    assert_eq!(catalog.get::<Old>(id + 1).unwrap(), None);
    assert_ne!(catalog.change(|change| change.next_id()).unwrap(), id);
}

#[test]
fn a_lost_catalog_comes_back_from_its_copy() {
    let storage = Arc::new(SimStorage::new());
    let catalog = Catalog::open(&*storage).unwrap();
    for id in [3, 5] {
        catalog.change(|change| change.put(&old(id))).unwrap();
    }
    let last = catalog.change(|change| change.next_id()).unwrap();
    catalog.back_up(&*storage).unwrap();
    catalog.change(|change| change.put(&old(9))).unwrap();
    drop(catalog);
    storage.remove(CATALOG_FILE).unwrap();
    let error = Catalog::open(&*storage).err().unwrap();
    assert!(error.message().contains("restore-catalog"), "{error}");
    assert_eq!(Catalog::restore(&*storage).unwrap(), 2);
    let catalog = Catalog::open(&*storage).unwrap();
    assert_eq!(catalog.list::<Old>().unwrap(), [old(3), old(5)]);
    assert!(catalog.change(|change| change.next_id()).unwrap() > last + 1000);
}

#[test]
fn what_was_under_way_is_not_brought_back_to_be_cleared_away() {
    let storage = Arc::new(SimStorage::new());
    let catalog = Catalog::open(&*storage).unwrap();
    let timeflow = |id, state, held| Timeflow {
        id,
        dataset: 1,
        volume: format!("v{id}"),
        log_volume: None,
        place: None,
        state,
        created: jiff::Timestamp::UNIX_EPOCH,
        from_snapshot: None,
        from: None,
        retired: None,
        held,
    };
    catalog
        .change(|change| {
            change.put(&timeflow(2, TimeflowState::Building, None))?;
            change.put(&timeflow(3, TimeflowState::Current, Some(json!({ "slot": "s" }))))
        })
        .unwrap();
    catalog.back_up(&*storage).unwrap();
    drop(catalog);
    for _ in 0..2 {
        assert_eq!(Catalog::restore(&*storage).unwrap(), 1);
    }
    let catalog = Catalog::open(&*storage).unwrap();
    assert_eq!(catalog.list::<Timeflow>().unwrap(), [timeflow(3, TimeflowState::Current, None)]);
    let aside = storage.list("").unwrap().into_iter().filter(|name| name.contains(".old")).count();
    assert_eq!(aside, 2);
}

#[test]
fn every_damaged_byte_of_a_copy_is_found() {
    let storage = Arc::new(SimStorage::new());
    let catalog = Catalog::open(&*storage).unwrap();
    catalog.change(|change| change.put(&old(3))).unwrap();
    catalog.back_up(&*storage).unwrap();
    let file = storage.open(BACKUP_FILE, OpenMode::ReadWrite).unwrap();
    let length = file.len().unwrap();
    for at in 0..length {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 0x20], at).unwrap();
        assert!(Catalog::restore(&*storage).is_err(), "byte {at}");
        file.write_all_at(&byte, at).unwrap();
    }
    file.set_len(length - 1).unwrap();
    assert!(Catalog::restore(&*storage).is_err());
}

#[test]
fn kinds_do_not_meet() {
    #[derive(Serialize, Deserialize)]
    struct Thinh(u64);
    impl Record for Thinh {
        const KIND: &'static str = "thinh";
        const VERSION: u32 = 1;
        fn id(&self) -> u64 {
            self.0
        }
    }
    let catalog = Catalog::open(&SimStorage::new()).unwrap();
    catalog
        .change(|change| {
            change.put(&Thinh(1))?;
            change.put(&old(u64::MAX))?;
            change.put(&old(0))
        })
        .unwrap();
    assert_eq!(catalog.list::<Old>().unwrap(), [old(0), old(u64::MAX)]);
    assert_eq!(catalog.list::<Thinh>().unwrap().len(), 1);
}

#[test]
fn records_of_older_versions_are_upgraded_and_newer_ones_refused() {
    let catalog = Catalog::open(&SimStorage::new()).unwrap();
    catalog.change(|change| change.put(&old(1))).unwrap();
    let new = New { id: 1, title: "name 1".into(), size: 7 };
    assert_eq!(catalog.get::<New>(1).unwrap(), Some(new.clone()));
    catalog.change(|change| change.update::<New>(1, |record| record.size = 8)).unwrap();
    let error = catalog.get::<Old>(1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.message().contains("version 3"), "{error}");
    assert_eq!(catalog.get::<New>(1).unwrap(), Some(New { size: 8, ..new }));
}
