//! A sound archive, damaged in many ways: whatever comes out, it is no panic and stays in the root.

use super::*;

/// xorshift: the same damage in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

fn seed_archive() -> Vec<u8> {
    // magic of GNU tar; one extent of 1 byte at 5; size 9 with the hole behind it
    let gnu_sparse = |h: &mut tar::UstarHeader| {
        let block = h.as_header_mut().as_mut_bytes();
        block[156] = b'S';
        block[257..265].copy_from_slice(b"ustar  \0");
        block[386..398].copy_from_slice(b"00000000005\0");
        block[398..410].copy_from_slice(b"00000000001\0");
        block[483..495].copy_from_slice(b"00000000011\0");
    };
    let mut tar = Tar::new()
        .dir("d/")
        .file("d/f", b"data")
        .symlink("up", "../..")
        .file("up/x", b"")
        .hard_link("d/h", "d/f")
        .pax(&[("path", b"d/long"), ("mtime", b"1.5"), ("size", b"3"), ("SCHILY.xattr.user.a", b"b\n")])
        .file("n", b"abc")
        .pax(&[
            ("GNU.sparse.major", b"0"),
            ("GNU.sparse.minor", b"1"),
            ("GNU.sparse.map", b"0,2,9,1"),
            ("GNU.sparse.size", b"20"),
        ])
        .file("sparse", b"123")
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.realsize", b"700"),
            ("GNU.sparse.name", b"d/s1"),
        ])
        .file("sparse1", &[&b"1\n600\n4\n"[..], &[0; 504], b"dddd"].concat())
        .raw(b'L', b"././@LongLink", b"d/gnu-long\0", |_| {})
        .file("ignored", b"g")
        .raw(b'0', b"short", b"g", gnu_sparse)
        .file("d/.wh.gone", b"")
        .raw(b'6', b"fifo", b"", |_| {})
        .dir("d/")
        .end();
    tar.truncate(tar.len() - 512);
    tar
}

/// Makes the checksum right again, so that damage reaches what is behind it.
fn mend(block: &mut [u8]) {
    block[148..156].copy_from_slice(b"        ");
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

#[test]
fn damaged_archives_do_no_harm() {
    let seed = seed_archive();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let limits = Limits { entries: 100, bytes: Some(1 << 20), depth: 50 };
    let values: [&[u8]; 12] = [
        b"../..",
        b"/",
        b"..",
        b".wh.",
        b".wh..wh..opq",
        b"\xff\xff\xff\xff",
        b"\x80\0\0\0",
        b"77777777777",
        b"\0",
        b"up/../x",
        b"0",
        b"size",
    ];
    // A couple of seconds; more by hand.
    let rounds = std::env::var("RRUN_MUTATIONS").map_or(1500, |n| n.parse().unwrap());
    let (mut good, mut bad) = (0, 0);
    let mut bench = Bench::new();
    bench.apply_with(&seed, &limits).unwrap();
    assert_eq!(fs::read(bench.at("short")).unwrap(), b"\0\0\0\0\0g\0\0\0");
    for round in 0..rounds {
        let mut tar = seed.clone();
        for _ in 0..1 + random.below(3) {
            let block = random.below(tar.len() / 512) * 512;
            let at = block + random.below(512);
            match random.below(4) {
                0 => tar[at] = random.next() as u8,
                1 => tar[at] ^= 1 << random.below(8),
                2 => {
                    let value = values[random.below(values.len())];
                    let at = [0, 100, 124, 136, 148, 156, 157, 329, 345, 386][random.below(10)] + block;
                    let end = (at + value.len()).min(tar.len());
                    tar[at..end].copy_from_slice(&value[..end - at]);
                }
                _ => tar[block + 156] = b"0123456LKxgS"[random.below(12)],
            }
            if random.below(8) != 0 {
                mend(&mut tar[block..block + 512]);
            }
        }
        if random.below(20) == 0 {
            tar.truncate(random.below(tar.len()));
        }
        match bench.apply_with(&tar, &limits) {
            Ok(_) => good += 1,
            Err(e) => {
                assert!(!e.message.is_empty());
                bad += 1;
            }
        }
        if round % 500 == 499 {
            bench = Bench::new();
        }
    }
    assert!(good > rounds / 20 && bad > rounds / 20, "{good} unpacked, {bad} refused");
}
