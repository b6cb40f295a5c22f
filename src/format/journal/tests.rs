//! Layout pins and refusals of the journal's bytes.

use super::*;

fn sample() -> (BatchKey, BatchHeader, Vec<u8>) {
    let key = BatchKey::new(&[7; 16]);
    let header = BatchHeader {
        records: 2,
        epoch: 3,
        first: Seq(11),
        durable: Seq(10),
        offset: 8192,
        payload_bytes: 4 + 5 + 4,
    };
    let mut bytes = vec![0; BATCH_HEADER_BYTES];
    bytes.extend(5_u32.to_le_bytes());
    bytes.extend(b"hello");
    bytes.extend(0_u32.to_le_bytes());
    header.seal(&key, &mut bytes);
    (key, header, bytes)
}

#[test]
fn batch_layout_is_pinned() {
    let (_, _, bytes) = sample();
    let fields = "53504a4241544348010000000200000003000000000000000b00000000000000\
                  0a0000000000000000200000000000000d00000000000000";
    let hex: String = bytes[..56].iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, fields);
    let sum: String = bytes[56..72].iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(sum, "91eddb5b922f636923a65be0b1f353c4");
}

#[test]
fn batch_round_trip() {
    let (key, header, mut bytes) = sample();
    bytes.resize(4096, 0xAA);
    let batch = decode_batch(&key, &bytes).unwrap();
    assert_eq!(batch.header, header);
    assert_eq!(batch.records().collect::<Vec<_>>(), [&b"hello"[..], b""]);
}

#[test]
fn every_flipped_bit_of_a_batch_is_seen() {
    let (key, _, bytes) = sample();
    for bit in 0..bytes.len() * 8 {
        let mut bad = bytes.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(decode_batch(&key, &bad).is_err(), "bit {bit}");
    }
    for length in 0..bytes.len() {
        assert!(decode_batch(&key, &bytes[..length]).is_err(), "length {length}");
    }
    assert_eq!(decode_batch(&BatchKey::new(&[8; 16]), &bytes).unwrap_err(), "checksum");
}

#[test]
fn a_sealed_lie_about_lengths_is_refused() {
    let (key, header, bytes) = sample();
    for (records, prefix) in [(1, 5_u32), (3, 5), (2, 6), (2, u32::MAX)] {
        let mut bad = bytes.clone();
        bad[72..76].copy_from_slice(&prefix.to_le_bytes());
        BatchHeader { records, ..header }.seal(&key, &mut bad);
        assert!(decode_batch(&key, &bad).is_err(), "{records} records, first of {prefix}");
    }
}

#[test]
fn file_header_layout_and_refusals() {
    let header = FileHeader { id: [9; 16], file_bytes: 1 << 20 };
    let page = header.encode();
    assert_eq!(page.len(), 4096);
    assert_eq!(&page[..16], b"SPJRNL\r\n\x01\0\0\0\0\0\0\0");
    assert_eq!(FileHeader::decode(&page).unwrap(), header);
    for byte in 0..56 {
        let mut bad = page.clone();
        bad[byte] ^= 0x10;
        assert_eq!(FileHeader::decode(&bad).unwrap_err().kind(), ErrorKind::Corrupt, "byte {byte}");
    }
    let mut later = page.clone();
    later[8] = 2;
    let sum = blake3::hash(&later[..40]);
    later[40..56].copy_from_slice(&sum.as_bytes()[..16]);
    assert_eq!(FileHeader::decode(&later).unwrap_err().kind(), ErrorKind::Unsupported);
    assert!(FileHeader::decode(&page[..20]).is_err());
}

#[test]
fn start_round_trip_and_refusals() {
    let start = Start { journal: [1; 16], epoch: 2, seq: Seq(3), offset: 4096 };
    assert_eq!(Start::decode(&start.encode()).unwrap(), start);
    let bad = [
        Start { epoch: 0, ..start },
        Start { seq: Seq(0), ..start },
        Start { offset: 1, ..start },
        Start { offset: u64::MAX - 4095, ..start },
    ];
    for start in bad {
        assert_eq!(Start::decode(&start.encode()).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}
