//! The journal's header page, batches and start: any bytes, and batches whose checksum is right.

#![no_main]

use libfuzzer_sys::fuzz_target;
use stillpoint::format::journal::{
    BATCH_HEADER_BYTES, BatchHeader, BatchKey, FileHeader, NUMBER_MAX, Seq, Start, decode_batch,
};

fuzz_target!(|input: &[u8]| {
    let key = BatchKey::new(&[0; 16]);
    let _ = decode_batch(&key, input);
    if let Ok(header) = FileHeader::decode(input) {
        assert_eq!(FileHeader::decode(&header.encode()).unwrap(), header);
    }
    if let Some(bytes) = input.first_chunk::<{ Start::BYTES }>()
        && let Ok(start) = Start::decode(bytes)
    {
        assert_eq!(&start.encode(), bytes);
        assert!(start.offset < NUMBER_MAX);
    }
    if let Some((numbers, payload)) = input.split_first_chunk::<40>() {
        sealed(&key, numbers, payload);
    }
});

/// A batch of any header and payload, with its checksum.
fn sealed(key: &BatchKey, numbers: &[u8; 40], payload: &[u8]) {
    let number = |at: usize| u64::from_le_bytes(numbers[at..at + 8].try_into().unwrap());
    let header = BatchHeader {
        records: number(0) as u32,
        epoch: number(8),
        first: Seq(number(16)),
        durable: Seq(number(24)),
        offset: number(32),
        payload_bytes: payload.len() as u32 + (numbers[7] == 1) as u32,
    };
    let mut bytes = vec![0; BATCH_HEADER_BYTES + payload.len()];
    bytes[BATCH_HEADER_BYTES..].copy_from_slice(payload);
    header.seal(key, &mut bytes);
    if let Ok(batch) = decode_batch(key, &bytes) {
        assert_eq!(batch.header, header);
        let framed: usize = batch.records().map(|record| 4 + record.len()).sum();
        assert_eq!(framed, payload.len());
        assert_eq!(batch.records().count(), header.records as usize);
        assert!(batch.header.ring_bytes() >= bytes.len() as u64);
    }
}
