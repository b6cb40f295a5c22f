//! Payloads of journal records: what decodes encodes to the same bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use stillpoint::format::log::{LogRecord, TreeChange, TreeRecord};

fuzz_target!(|input: &[u8]| {
    match LogRecord::decode(input) {
        Ok(LogRecord::Tree { view, changes }) => {
            let mut record = TreeRecord::new(view);
            for change in &changes {
                match change {
                    TreeChange::Metadata(batch) => record.metadata(batch),
                    TreeChange::Clear { ino, from, to } => record.clear(*ino, *from, *to),
                    TreeChange::Data { ino, offset, bytes } => record.data(*ino, *offset, bytes),
                    TreeChange::Share { ino, page, pointer } => record.share(*ino, *page, pointer),
                }
            }
            assert_eq!(record.bytes(), input);
        }
        Ok(LogRecord::Catalog(change)) => assert_eq!(change.encode(), input),
        Err(_) => {}
    }
});
