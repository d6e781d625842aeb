use super::*;

const ALL: Abilities = Abilities::NONE
    .with(Abilities::CSUM, true)
    .with(Abilities::TSO4, true)
    .with(Abilities::TSO6, true)
    .with(Abilities::USO, true);

/// Ethernet, IPv4, TCP with 12 bytes of options.
fn tcp4() -> (Vec<u8>, Offload) {
    let mut f = vec![0; 14 + 20 + 32];
    f[12..16].copy_from_slice(&[8, 0, 0x45, 0]);
    (f[23], f[46]) = (6, 0x80);
    let offload = Offload {
        flags: 1,
        gso_type: gso::TCPV4,
        hdr_len: 66,
        gso_size: 1448,
        csum_start: 34,
        csum_offset: 16,
    };
    (f, offload)
}

#[test]
fn an_honest_super_frame_passes_and_hints_are_corrected() {
    let (f, o) = tcp4();
    assert_eq!(o.check(&f, 10_000, ALL), Ok(o));
    let hint = Offload { hdr_len: 200, ..o };
    assert_eq!(hint.check(&f, 10_000, ALL), Ok(o), "more than the headers may be in one buffer");
    let short = o.check(&f, 1000, ALL).expect("no longer than a segment");
    assert_eq!((short.gso_type, short.gso_size, short.hdr_len, short.flags), (0, 0, 0, 1));
    assert_eq!(o.on_wire(10_000), (7, 10_000 + 6 * 66));
    assert_eq!((o.longest(10_000), o.longest(100)), (1514, 100));
}

#[test]
fn what_was_not_negotiated_is_refused() {
    let (f, o) = tcp4();
    let refused = Err(DropReason::RxInvalidOffload);
    assert_eq!(o.check(&f, 10_000, Abilities::CSUM), refused);
    assert_eq!(o.check(&f, 10_000, Abilities::NONE), refused);
    for gso_type in (0..=255).filter(|t| ![0, 1, 4, 5].contains(t)) {
        assert_eq!(Offload { gso_type, ..o }.check(&f, 10_000, ALL), refused, "{gso_type}");
    }
    let ecn = ALL.with(Abilities::ECN, true);
    assert!(Offload { gso_type: gso::TCPV4 | gso::ECN, ..o }.check(&f, 10_000, ecn).is_ok());
    assert!(Offload { gso_type: gso::UDP_L4 | gso::ECN, ..o }.check(&f, 10_000, ecn).is_err());
}

#[test]
fn each_lie_has_its_reason() {
    use DropReason::{RxChecksumOutside, RxSegmentSize, RxSuperFrameHeaders};
    let (f, o) = tcp4();
    let lies = [
        (Offload { csum_start: 9999, ..o }, RxChecksumOutside),
        (Offload { csum_start: 0, ..o }, RxChecksumOutside),
        (Offload { csum_start: u16::MAX, csum_offset: u16::MAX, ..o }, RxChecksumOutside),
        (Offload { flags: 0, ..o }, RxSuperFrameHeaders),
        (Offload { hdr_len: 10_001, ..o }, RxSuperFrameHeaders),
        (Offload { csum_offset: 6, ..o }, RxSuperFrameHeaders),
        (Offload { csum_start: 38, ..o }, RxSuperFrameHeaders),
        (Offload { gso_type: gso::TCPV6, ..o }, RxSuperFrameHeaders),
        (Offload { gso_type: gso::UDP_L4, csum_offset: 6, ..o }, RxSuperFrameHeaders),
        (Offload { gso_size: 0, ..o }, RxSegmentSize),
        (Offload { gso_size: 1, ..o }, RxSegmentSize),
        (Offload { gso_size: u16::MAX, ..o }, RxSegmentSize),
    ];
    for (lie, reason) in lies {
        assert_eq!(lie.check(&f, 10_000, ALL), Err(reason), "{lie:?}");
    }
    type Change = dyn Fn(&mut Vec<u8>);
    let changes: [&Change; 7] = [
        &|f| f[23] = 17,
        &|f| f[14] = 0x65,
        &|f| f[14] = 0x46,
        &|f| f[12..14].copy_from_slice(&[0x86, 0xdd]),
        &|f| f[12..14].copy_from_slice(&[0x81, 0x00]),
        &|f| f[20] = 0x20,
        &|f| f[46] = 0x40,
    ];
    for (i, change) in changes.iter().enumerate() {
        let mut f = f.clone();
        change(&mut f);
        assert_eq!(o.check(&f, 10_000, ALL), Err(RxSuperFrameHeaders), "{i}");
    }
    let udp = Offload { gso_type: gso::UDP_L4, csum_offset: 6, gso_size: 10, hdr_len: 42, ..o };
    let mut g = f.clone();
    g[23] = 17;
    assert!(udp.check(&g, 42 + 1280, ALL).is_ok());
    assert_eq!(udp.check(&g, 42 + 1281, ALL), Err(RxSegmentSize), "more than 128 datagrams");
}

/// Whatever a guest says of whatever frame: what passes keeps its promises.
#[test]
fn what_passes_can_be_relied_on() {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = |n: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % n
    };
    let mut passed = 0;
    for _ in 0..400_000 {
        let (mut f, mut o) = tcp4();
        for _ in 0..random(3) {
            let at = random(f.len() as u64) as usize;
            f[at] = [0, 6, 17, 0x45, 0x60, 0x81, 0x86, 0xdd, random(256) as u8][random(9) as usize];
        }
        match random(8) {
            0 => o.csum_start = random(80) as u16,
            1 => o.csum_offset = random(20) as u16,
            2 => o.gso_size = random(65536) as u16,
            3 => o.gso_type = random(8) as u8,
            4 => f.truncate(random(67) as usize),
            5 => o.hdr_len = random(65536) as u16,
            _ => {}
        }
        let len = f.len() + random(66_000) as usize;
        let Ok(o) = o.check(&f, len, ALL) else { continue };
        passed += 1;
        assert!(o.partial_at().is_none_or(|at| at + 2 <= len));
        if o.is_super() {
            assert!(o.needs_csum() && usize::from(o.hdr_len) < len && o.gso_size > 0);
            assert!(o.on_wire(len).0 <= 65_557 / 48 + 1, "{o:?}");
            assert!(network(&f).is_some_and(|n| n < usize::from(o.csum_start)));
        }
    }
    assert!(passed > 50_000, "{passed}");
}

#[test]
fn a_whole_frame_is_completed() {
    let mut f = vec![7u8; 61];
    let mut o = Offload { flags: 1, csum_start: 34, csum_offset: 6, ..Offload::default() };
    f[40..42].copy_from_slice(&[0x12, 0x34]);
    o.complete(&mut f);
    assert!(o.is_none());
    // Its own sum is what makes the words come out as the pseudo-header's complement.
    let mut without = f.clone();
    without[40..42].copy_from_slice(&[0x12, 0x34]);
    assert_eq!(checksum::internet(0, &without[34..]).to_be_bytes(), f[40..42]);
    Offload { flags: 1, csum_start: 60, csum_offset: 60, ..o }.complete(&mut f);
}

#[test]
fn words_and_bytes_are_the_same() {
    let (_, o) = tcp4();
    let (first, last) = o.words();
    let mut bytes = [0; Offload::BYTES];
    bytes[..8].copy_from_slice(&first.to_ne_bytes());
    bytes[8..].copy_from_slice(&last.to_ne_bytes());
    assert_eq!(Offload::from_device(&bytes), Some(o));
    assert_eq!(Offload::from_device(&bytes[1..]), None);
}

#[test]
fn a_checksum_alone_is_what_the_whole_check_says() {
    let frame = [0; 100];
    for flags in [0, 1, 2, 3] {
        for (csum_start, csum_offset) in
            [(13, 6), (14, 0), (34, 6), (34, 64), (34, 65), (99, 0), (u16::MAX, u16::MAX)]
        {
            let said =
                Offload { flags, csum_start, csum_offset, hdr_len: 7, gso_size: 9, gso_type: 0 };
            let whole = said.check(&frame, frame.len(), ALL).ok().filter(Offload::needs_csum);
            assert_eq!(said.checksum_alone(frame.len()), whole, "{said:?}");
            let tcp = Offload { gso_type: gso::TCPV4, ..said };
            assert_eq!(tcp.checksum_alone(frame.len()), None);
        }
    }
}
