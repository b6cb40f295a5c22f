//! Values and keys of a volume's metadata: what decodes encodes to the same bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use stillpoint::format::cursor::Reader;
use stillpoint::format::inode::{Inode, MapRoot, decode_entry, encode_entry};
use stillpoint::format::{Pointer, key};

fuzz_target!(|input: &[u8]| {
    if let Ok(inode) = Inode::decode(input) {
        assert_eq!(inode.encode(), input);
    }
    if let Ok(map) = MapRoot::decode(input) {
        assert_eq!(map.encode(), input);
    }
    if let Ok((ino, kind)) = decode_entry(input) {
        assert_eq!(encode_entry(ino, kind), input);
    }
    if let Ok(pointer) = Pointer::decode(&mut Reader::new(input, "pointer")) {
        let mut again = Vec::new();
        pointer.encode(&mut again);
        assert_eq!(again, input[..Pointer::ENCODED]);
    }
    if let Ok((ino, kind, rest)) = key::split(input) {
        assert_eq!([&key::plain(ino, kind), rest].concat(), input);
        if let Ok((hash, name)) = key::split_entry(rest) {
            assert_eq!(
                [&key::entry_from(ino, hash), name].concat()[9..],
                [&hash.to_be_bytes()[..], name].concat()
            );
        }
    }
});
