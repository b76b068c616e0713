//! Pictures of any octets, as a web server has them and as a certificate has them: what may be shown has nothing in it that runs, moves
//! or refers to anything else, and what is written of it stays on its lines.

#![no_main]

use libfuzzer_sys::fuzz_target;
use trust::{IndicatorText, read_indicator, read_logotype};

const SIZE_MAX: usize = 32 << 10;

fuzz_target!(|input: &[u8]| {
    if let Ok(svg) = read_indicator(input, SIZE_MAX) {
        assert!(svg.len() <= SIZE_MAX);
        let text = std::str::from_utf8(&svg).expect("it is UTF-8");
        for never in ["<script", "<animate", "<image", "<foreignObject", "<style", "<!DOCTYPE", "<!ENTITY", "<?xml-s"] {
            // Within a comment or a CDATA section it is text.
            assert!(!text.contains(never) || text.contains("<!--") || text.contains("<![CDATA["), "{never}");
        }
        let shown = IndicatorText::new(&svg);
        assert!(shown.field().ends_with("\r\n") && shown.field().split("\r\n").all(|line| line.len() <= 90));
        assert_eq!(shown.hash().len(), 16);
        // It is what it was, also when it is read again.
        assert_eq!(read_indicator(&svg, SIZE_MAX), Ok(svg));
    }
    if let Ok(url) = std::str::from_utf8(input) {
        let _ = read_logotype(url, SIZE_MAX);
    }
});
