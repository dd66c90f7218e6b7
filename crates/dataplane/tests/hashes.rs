//! The twelve hashes against vectors of the originals, and the hash tag.

use dataplane::hash::{HashKind, HashTag};
use proptest::prelude::*;

const KEYS: [&[u8]; 7] = [
    b"a",
    b"foo",
    b"hello",
    b"user:1000",
    b"key:000000000001",
    b"\xc3\xa9t\xc3\xa9",
    b"\xff",
];

/// What twemproxy's own hash functions, compiled for x86-64, return for [`KEYS`].
#[rustfmt::skip]
const VECTORS: [(&str, [u32; 7]); 12] = [
    ("one_at_a_time", [0xca2e_9442, 0x2386_78dd, 0xc8fd_181b, 0xb563_b74f, 0x7752_f306, 0x7fcb_4b35, 0xae65_a494]),
    ("md5",           [0xb975_c10c, 0xdb18_bdac, 0x2a40_415d, 0x2e98_6207, 0x7512_b026, 0x1e6a_afde, 0xd44f_5900]),
    ("crc16",         [0x0000_7c87, 0x0c3c_af96, 0x6b4f_c362, 0xe164_4671, 0x3968_e2dc, 0xe626_a767, 0x0000_1ef0]),
    ("crc32",         [0x0000_68b7, 0x0000_0c73, 0x0000_3610, 0x0000_1f74, 0x0000_2f2b, 0x0000_44d1, 0x0000_7f00]),
    ("crc32a",        [0xe8b7_be43, 0x8c73_6521, 0x3610_a686, 0x9f74_17e3, 0x2f2b_8c05, 0x44d1_6cd4, 0xff00_0000]),
    ("fnv1_64",       [0x8601_b7be, 0x6ba1_3533, 0xbdbd_d4c7, 0xd39e_3d21, 0x7e21_f9fd, 0xee20_2e17, 0x79fe_4820]),
    ("fnv1a_64",      [0x8601_ec8c, 0xfed9_d577, 0x80aa_bd0b, 0xae7b_4289, 0x6f7e_1c75, 0xea76_9c57, 0x79fe_466e]),
    ("fnv1_32",       [0x050c_5d7e, 0x408f_5e13, 0xb6fa_7167, 0xa6af_fca1, 0xa837_859d, 0xbebb_7c97, 0xfaf3_a2e0]),
    ("fnv1a_32",      [0xe40c_292c, 0xa9f3_7ed7, 0x4f9f_2cab, 0x507c_1d89, 0x2473_f315, 0x0bee_a017, 0xf9f3_a14e]),
    ("hsieh",         [0x9364_2e87, 0x76d4_d427, 0x1384_2ac5, 0xddec_1969, 0x0edb_136d, 0xcc95_5977, 0x02a6_dba8]),
    ("murmur",        [0x4b41_757c, 0xc4e0_338f, 0x521b_0bff, 0x8e24_aec7, 0x1cb9_76be, 0xda71_0acb, 0xdb53_0a9c]),
    ("jenkins",       [0xe0a3_8690, 0x99f8_4f99, 0x2e0c_c8f3, 0x048c_4d84, 0xa25f_7e8c, 0x8946_6c13, 0xe196_4da8]),
];

fn kind(name: &str) -> HashKind {
    HashKind::from_name(name).expect(name)
}

#[test]
fn every_hash_gives_the_originals_values() {
    for (name, expected) in VECTORS {
        assert_eq!(KEYS.map(|key| kind(name).hash(key)), expected, "{name}");
    }
    assert_eq!(VECTORS.len(), HashKind::ALL.len());
}

#[test]
fn an_empty_key_hashes_to_zero_under_every_hash() {
    for (name, kind) in HashKind::ALL {
        assert_eq!(kind.hash(b""), 0, "{name}");
    }
}

#[test]
fn names_are_case_sensitive_and_lead_back() {
    for (name, kind) in HashKind::ALL {
        assert_eq!(kind.name(), name);
        assert_eq!(HashKind::from_name(&name.to_uppercase()), None);
    }
    assert_eq!(HashKind::from_name("fnv"), None);
}

#[test]
fn only_the_first_tag_counts_and_only_if_it_is_not_empty() {
    let tag = HashTag::new("{}").expect("two characters");
    for (key, part) in [
        ("{user}:1", "user"),
        ("a{b}c", "b"),
        ("a{b}{c}", "b"),
        ("a{b{c}d", "b{c"),
        ("}{a}", "a"),
        ("{}a", "{}a"),
        ("{}{a}", "{}{a}"),
        ("{a", "{a"),
        ("a}", "a}"),
        ("", ""),
    ] {
        assert_eq!(tag.part(key.as_bytes()), part.as_bytes(), "{key}");
    }
}

#[test]
fn a_tag_may_use_one_character_for_both_ends_but_not_more_than_two_bytes() {
    let tag = HashTag::new("$$").expect("two characters");
    assert_eq!(tag.part(b"a$b$c"), b"b");
    for markers in ["", "{", "{}{", "é}"] {
        assert_eq!(HashTag::new(markers), None, "{markers}");
    }
}

proptest! {
    /// Block-wise hashes treat lengths modulo 4 and 12 apart: none may panic or depend on what lies
    /// behind the key.
    #[test]
    fn any_key_hashes_the_same_wherever_it_lies(key: Vec<u8>, before: Vec<u8>, after: Vec<u8>) {
        let all = [before.as_slice(), &key, &after].concat();
        let there = &all[before.len()..before.len() + key.len()];
        for (name, kind) in HashKind::ALL {
            prop_assert_eq!(kind.hash(&key), kind.hash(there), "{}", name);
        }
    }

    #[test]
    fn a_tagged_part_is_never_empty_unless_the_key_is(key: Vec<u8>) {
        let tag = HashTag::new("{}").expect("two characters");
        prop_assert_eq!(tag.part(&key).is_empty(), key.is_empty());
    }
}
