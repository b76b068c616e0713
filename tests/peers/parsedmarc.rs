//! parsedmarc, which many read reports with: what it makes of ours.

use end_to_end::{Mail, run, unpacked};
use serde_json::Value;

/// Reads a mail, and prints what the report in it says. Nothing is asked of any network.
const READ: &str = "
import json, sys, parsedmarc
print(json.dumps(parsedmarc.parse_report_email(sys.stdin.buffer.read(), offline=True), default=str))
";

/// The report of that kind in a mail: `aggregate`, `failure` or `smtp_tls`.
pub(crate) fn parsed(mail: &Mail, kind: &str) -> Value {
    let python = unpacked("parsedmarc", "bin/python");
    let text = run(&python, &["-c", READ], &mail.content).good().stdout;
    let mut read: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(read["report_type"], kind, "{read}");
    read["report"].take()
}
