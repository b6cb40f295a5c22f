//! Pages of SQL Server of any bytes: looked at, and once they have a checksum every change of them is found.

#![no_main]

use libfuzzer_sys::fuzz_target;
use stillpoint::adapter::sqlserver::page::{PAGE_BYTES, PageHeader, PageState, check, checksum};
use stillpoint::adapter::sqlserver::tape::place_extent;

fuzz_target!(|input: (Vec<u8>, u16, u8)| {
    let (bytes, at, mask) = input;
    let _ = (check(&bytes), checksum(&bytes), PageHeader::decode(&bytes), place_extent(&bytes));
    let mut page = bytes;
    page.resize(PAGE_BYTES, 0);
    page[4..6].copy_from_slice(&[0, 2]);
    let sum = checksum(&page);
    page[60..64].copy_from_slice(&sum.to_le_bytes());
    assert_eq!(check(&page), PageState::Good);
    let at = usize::from(at) % PAGE_BYTES;
    // The flag's own byte may turn the page into one with torn-page bits, which are weaker.
    if mask != 0 && at != 5 {
        page[at] ^= mask;
        assert!(check(&page).is_bad(), "byte {at} by {mask:#x}");
    }
});
