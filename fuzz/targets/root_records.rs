//! Values of the root table: what decodes encodes to the same bytes, and a seal is bound to table and key.

#![no_main]

use libfuzzer_sys::fuzz_target;
use stillpoint::format::catalog_records::{SnapshotRecord, Superblock, VolumeRecord, open_sealed, seal};

fuzz_target!(|input: &[u8]| {
    if let Ok(superblock) = Superblock::decode(input) {
        assert_eq!(superblock.encode(), input);
    }
    if let Ok(volume) = VolumeRecord::decode(input) {
        assert_eq!(volume.encode(), input);
    }
    if let Ok(snapshot) = SnapshotRecord::decode(input) {
        assert_eq!(snapshot.encode(), input);
    }
    assert!(open_sealed("volumes", 1, input).is_err());
    let sealed = seal("volumes", 1, input.to_vec());
    assert_eq!(open_sealed("volumes", 1, &sealed).unwrap(), input);
    assert!(open_sealed("volumes", 2, &sealed).is_err());
});
