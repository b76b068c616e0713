//! A header section of any octets, cut anywhere: the same summary as in one piece, and every range within it.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use message::{
    EightBit, HeaderEnd, HeaderLimits, HeaderScan,
    compose::{Header, one_line},
    content,
};

fuzz_target!(|input: &[u8]| {
    // The first octet says how long the slices are.
    let Some((step, octets)) = input.split_first() else { return };
    let limits = HeaderLimits { header_size_max: 4096 };
    let whole = HeaderScan::of(&[Bytes::copy_from_slice(octets)], limits);
    let parts: Vec<_> = octets.chunks(usize::from(*step).max(1)).map(Bytes::copy_from_slice).collect();
    assert_eq!(HeaderScan::of(&parts, limits), whole);

    assert!(whole.len <= whole.body_start && whole.body_start <= octets.len().min(limits.header_size_max));
    let header = &octets[..whole.len];
    for range in [whole.message_id, whole.from, whole.malformed_first].into_iter().flatten() {
        assert_eq!(content::gather(&parts, range.clone()), header[range]);
    }
    match whole.end {
        HeaderEnd::EmptyLine => assert!(octets[whole.len..].starts_with(b"\r\n")),
        HeaderEnd::Content => assert_eq!(whole.body_start, octets.len()),
        HeaderEnd::TooLong => assert_eq!(whole.len, limits.header_size_max),
    }
    match whole.eight_bit {
        EightBit::None => assert!(header.is_ascii()),
        EightBit::Utf8 => assert!(str::from_utf8(header).is_ok() && !header.is_ascii()),
        EightBit::Other => assert!(str::from_utf8(header).is_err()),
    }
    // Whatever a peer says fits into a field of a report, and cannot leave it.
    let mut fields = Header::new();
    fields.text("X-Peer", &one_line(octets)).expect("one line fits");
    let field = HeaderScan::of(&[fields.into_bytes()], HeaderLimits { header_size_max: usize::MAX });
    assert_eq!((field.fields.all, field.malformed, field.control, field.end), (1, 0, 0, HeaderEnd::Content));
    assert!(field.line_len_max <= 998);
});
