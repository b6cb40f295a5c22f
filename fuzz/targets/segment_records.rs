//! Segment records, and directories whose checksum is right.

#![no_main]

use libfuzzer_sys::fuzz_target;
use stillpoint::format::segment::{Entry, SegmentRecord, decode_directory, encode_directory};
use stillpoint::format::{Place, block_id, check_of};

fuzz_target!(|input: &[u8]| {
    if let Ok(record) = SegmentRecord::decode(input) {
        assert_eq!(record.encode(), input);
        for chunk in &record.chunks {
            assert!(
                chunk.bodies_offset <= chunk.directory_offset && chunk.directory_offset <= chunk.end_offset()
            );
        }
        for slot in [0, 1, record.slots, Place::SLOTS_MAX - 1] {
            let _ = record.chunk_of(Place { segment: record.id, slot });
        }
    }
    let _ = Entry::decode(input);
    if input.len() >= 8 {
        let mut directory = 0x5250_5344_u32.to_le_bytes().to_vec();
        directory.extend_from_slice(&7_u32.to_le_bytes());
        directory.extend_from_slice(&input[8..]);
        decoded(&directory);
        decoded(input);
    }
});

fn decoded(directory: &[u8]) {
    let check = check_of(&block_id(directory));
    if let Ok(entries) = decode_directory(directory, 7, &check) {
        assert!(entries.is_sorted_by(|left, right| left.slot < right.slot));
        let (again, check) = encode_directory(7, &entries);
        assert_eq!(decode_directory(&again, 7, &check).unwrap(), entries);
        // All but the reserved word of the head.
        assert_eq!((&again[..12], &again[16..]), (&directory[..12], &directory[16..]));
    }
    assert!(decode_directory(directory, 7, &[0; 16]).is_err());
}
