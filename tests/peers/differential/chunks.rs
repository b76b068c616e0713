//! Mail data after BDAT.

use super::{Input, differs, same};

pub(super) const INPUTS: &[Input] = &[
    same("one chunk", b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|=1:BDAT 17 LAST\r\nSubject: x\r\n\r\nx\r\n"),
    same("two chunks", b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|=1:BDAT 17\r\nSubject: x\r\n\r\nx\r\n|=1:BDAT 3 LAST\r\ny\r\n"),
    same("a chunk, then BDAT 0 LAST", b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|=1:BDAT 17\r\nSubject: x\r\n\r\nx\r\n|BDAT 0 LAST"),
    differs(
        "BDAT 0 LAST alone",
        b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|BDAT 0 LAST",
        "An empty message is a message (RFC 3030 §2). Exim adds the empty line that ends a header section.",
    ),
    differs(
        "BDAT 0, then a chunk",
        b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|BDAT 0|=1:BDAT 17 LAST\r\nSubject: x\r\n\r\nx\r\n",
        "A chunk of no octets is a chunk (RFC 3030 §2). Postfix takes it for the end.",
    ),
    same("chunks in one go", b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|=3:BDAT 17\r\nSubject: x\r\n\r\nx\r\nBDAT 3\r\ny\r\nBDAT 3 LAST\r\nz\r\n"),
    same("lower case", b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|=1:bdat 17 last\r\nSubject: x\r\n\r\nx\r\n"),
    same("zeros before the size", b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|=1:BDAT 00017 LAST\r\nSubject: x\r\n\r\nx\r\n"),
    same("two spaces", b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|=1:BDAT  17  LAST\r\nSubject: x\r\n\r\nx\r\n"),
    same("a space at the end", b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|=1:BDAT 17 LAST \r\nSubject: x\r\n\r\nx\r\n"),
    differs(
        "no size",
        b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|=0:BDAT\r\n",
        "Nobody knows where this chunk ends (RFC 3030 §2), so what follows could be anything. 501, and we hang up; Postfix gives 521 and hangs up. Exim reads as much of it as is a number, or goes on.",
    ),
    differs(
        "no size but LAST",
        b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|=0:BDAT LAST\r\n",
        "Nobody knows where this chunk ends (RFC 3030 §2), so what follows could be anything. 501, and we hang up; Postfix gives 521 and hangs up. Exim reads as much of it as is a number, or goes on.",
    ),
    differs(
        "a size of letters",
        b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|=0:BDAT x LAST\r\n",
        "Nobody knows where this chunk ends (RFC 3030 §2), so what follows could be anything. 501, and we hang up; Postfix gives 521 and hangs up. Exim reads as much of it as is a number, or goes on.",
    ),
    differs(
        "a negative size",
        b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|=0:BDAT -1 LAST\r\n",
        "Nobody knows where this chunk ends (RFC 3030 §2), so what follows could be anything. 501, and we hang up; Postfix gives 521 and hangs up. Exim reads as much of it as is a number, or goes on.",
    ),
    differs(
        "a size with a plus",
        b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|=0:BDAT +17 LAST\r\nSubject: x\r\n\r\nx\r\n",
        "Nobody knows where this chunk ends (RFC 3030 §2), so what follows could be anything. 501, and we hang up; Postfix gives 521 and hangs up. Exim reads as much of it as is a number, or goes on.",
    ),
    differs(
        "a hexadecimal size",
        b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|=0:BDAT 0x11 LAST\r\nSubject: x\r\n\r\nx\r\n",
        "Nobody knows where this chunk ends (RFC 3030 §2), so what follows could be anything. 501, and we hang up; Postfix gives 521 and hangs up. Exim reads as much of it as is a number, or goes on.",
    ),
    differs(
        "a size and letters",
        b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|=0:BDAT 17k LAST\r\nSubject: x\r\n\r\nx\r\n",
        "Nobody knows where this chunk ends (RFC 3030 §2), so what follows could be anything. 501, and we hang up; Postfix gives 521 and hangs up. Exim reads as much of it as is a number, or goes on.",
    ),
    differs(
        "another word than LAST",
        b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|=0:BDAT 17 FIRST\r\nSubject: x\r\n\r\nx\r\n",
        "Nobody knows where this chunk ends (RFC 3030 §2), so what follows could be anything. 501, and we hang up; Postfix gives 521 and hangs up. Exim reads as much of it as is a number, or goes on.",
    ),
    differs(
        "LAST and more",
        b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|=0:BDAT 17 LAST now\r\nSubject: x\r\n\r\nx\r\n",
        "Nobody knows where this chunk ends (RFC 3030 §2), so what follows could be anything. 501, and we hang up; Postfix gives 521 and hangs up. Exim reads as much of it as is a number, or goes on.",
    ),
    differs(
        "a tab before the size",
        b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|=0:BDAT\t17 LAST\r\nSubject: x\r\n\r\nx\r\n",
        "HT is no SP (RFC 3030 §2), so this is no BDAT; but a chunk follows it, and we hang up. Exim reads the chunk as commands.",
    ),
    differs(
        "a size beyond the limit",
        b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|=0:BDAT 999999999 LAST\r\n",
        "Too much to be read and thrown away: refused before it comes (RFC 1870 §6.3), and hung up.",
    ),
    differs(
        "a size of 2 to the 32",
        b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|=0:BDAT 4294967296 LAST\r\n",
        "As above. Exim counts in 32 bits, and takes it for a chunk of no octets: what follows it would be commands.",
    ),
    differs(
        "a size of 2 to the 64",
        b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|=0:BDAT 18446744073709551616 LAST\r\n",
        "Nobody knows where this chunk ends (RFC 3030 §2), so what follows could be anything. 501, and we hang up; Postfix gives 521 and hangs up. Exim reads as much of it as is a number, or goes on.",
    ),
    differs(
        "a size of 30 digits",
        b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|=0:BDAT 999999999999999999999999999999 LAST\r\n",
        "Nobody knows where this chunk ends (RFC 3030 §2), so what follows could be anything. 501, and we hang up; Postfix gives 521 and hangs up. Exim reads as much of it as is a number, or goes on.",
    ),
    differs(
        "a chunk shorter than its size",
        b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|=0:BDAT 67 LAST\r\nSubject: x\r\n\r\nx\r\n",
        "The connection ends in a chunk: no message (RFC 3030 §2). Whether there is a 421 does not matter: nobody reads it.",
    ),
    differs(
        "a chunk longer than its size",
        b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|=0:BDAT 14 LAST\r\nSubject: x\r\n\r\nx\r\n",
        "What is left over is a command (RFC 3030 §2). Exim hangs up, because the client did not wait.",
    ),
    same("a chunk that ends in CR", b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|=1:BDAT 16\r\nSubject: x\r\n\r\nx\r|=1:BDAT 1 LAST\r\n\n"),
    differs(
        "a message that does not end in CR LF",
        b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|=1:BDAT 15 LAST\r\nSubject: x\r\n\r\nx",
        "It came in a chunk and leaves in one (RFC 3030 §2), octet for octet. The others add CR LF; so do we where the next hop takes DATA alone.",
    ),
    same("dots stay as they are", b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|=1:BDAT 24 LAST\r\nSubject: x\r\n\r\nx\r\n.\r\n..\r\n"),
    same("CR LF . CR LF in a chunk", b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|=1:BDAT 23 LAST\r\nSubject: x\r\n\r\nx\r\n.\r\ny\r\n"),
    differs(
        "a bare LF in a chunk",
        b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|=1:BDAT 19 LAST\r\nSubject: x\r\n\r\nx\r\na\n",
        "The rules are those of DATA, because the next hop may get it by DATA (RFC 5321 §2.3.8, RFC 3030 §3). BINARYMIME is for other content.",
    ),
    differs(
        "a bare CR in a chunk",
        b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|=1:BDAT 21 LAST\r\nSubject: x\r\n\r\nx\r\na\rb\r",
        "The rules are those of DATA, because the next hop may get it by DATA (RFC 5321 §2.3.8, RFC 3030 §3). BINARYMIME is for other content.",
    ),
    differs(
        "a NUL in a chunk",
        b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|=1:BDAT 21 LAST\r\nSubject: x\r\n\r\nx\r\n\0a\r\n",
        "The rules are those of DATA, because the next hop may get it by DATA (RFC 5321 §2.3.8, RFC 3030 §3). BINARYMIME is for other content.",
    ),
    differs(
        "a false end in a chunk",
        b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|=1:BDAT 29 LAST\r\nSubject: x\r\n\r\nx\r\ny\n.\nNOOP\r\n.\r",
        "The rules are those of DATA, because the next hop may get it by DATA (RFC 5321 §2.3.8, RFC 3030 §3). BINARYMIME is for other content.",
    ),
    differs(
        "DATA after BDAT",
        b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|=1:BDAT 17\r\nSubject: x\r\n\r\nx\r\n|=0:DATA\r\n",
        "503 (RFC 3030 §2). Postfix and Exim hang up.",
    ),
    differs(
        "MAIL after BDAT",
        b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|=1:BDAT 17\r\nSubject: x\r\n\r\nx\r\n|=0:MAIL FROM:<ann@a.test>\r\n",
        "Not the order of RFC 3030 §2, but each command is answered; Exim then hangs up with one reply too many.",
    ),
    differs(
        "RCPT after BDAT",
        b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|=1:BDAT 17\r\nSubject: x\r\n\r\nx\r\n|=0:RCPT TO:<bea@b.test>\r\n",
        "Not the order of RFC 3030 §2, but each command is answered; Exim then hangs up with one reply too many.",
    ),
    same("NOOP between chunks", b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|=1:BDAT 17\r\nSubject: x\r\n\r\nx\r\n|NOOP|BDAT 0 LAST"),
    differs(
        "VRFY between chunks",
        b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|=1:BDAT 17\r\nSubject: x\r\n\r\nx\r\n|VRFY bob|BDAT 0 LAST",
        "VRFY leaves a transaction alone (RFC 5321 §4.1.1.6), a chunked one too. Exim fails it.",
    ),
    same("RSET between chunks", b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|=1:BDAT 17\r\nSubject: x\r\n\r\nx\r\n|RSET|BDAT 0 LAST"),
    same("RSET between chunks, then a message", b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|=1:BDAT 17\r\nSubject: x\r\n\r\nx\r\n|RSET|MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|=1:BDAT 17 LAST\r\nSubject: x\r\n\r\nx\r\n"),
    differs(
        "EHLO between chunks",
        b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|=1:BDAT 17\r\nSubject: x\r\n\r\nx\r\n|EHLO {t}|BDAT 0 LAST",
        "Not the order of RFC 3030 §2, but each command is answered; Exim then hangs up with one reply too many.",
    ),
    differs(
        "QUIT between chunks",
        b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|=1:BDAT 17\r\nSubject: x\r\n\r\nx\r\n",
        "Not the order of RFC 3030 §2, but each command is answered; Exim then hangs up with one reply too many.",
    ),
    same("BDAT after LAST", b"MAIL FROM:<ann@a.test>|RCPT TO:<bob@b.test>|=1:BDAT 17 LAST\r\nSubject: x\r\n\r\nx\r\n|=1:BDAT 3 LAST\r\ny\r\n"),
    same("BDAT before MAIL", b"=1:BDAT 6 LAST\r\nQUIT\r\n|NOOP"),
    differs(
        "BDAT before RCPT",
        b"MAIL FROM:<ann@a.test>|=1:BDAT 6 LAST\r\nQUIT\r\n|NOOP",
        "503 and 554 are both right (RFC 5321 §3.3).",
    ),
    differs(
        "BDAT before EHLO",
        b"^|=0:BDAT 6 LAST\r\nQUIT\r\n",
        "A chunk that is refused is swallowed (RFC 3030 §2). Postfix hangs up.",
    ),
    same("a group with chunks", b"=4:MAIL FROM:<ann@a.test>\r\nRCPT TO:<bob@b.test>\r\nBDAT 17\r\nSubject: x\r\n\r\nx\r\nBDAT 0 LAST\r\n"),
    differs(
        "a group whose recipients are refused",
        b"=0:MAIL FROM:<ann@a.test>\r\nRCPT TO:<@>\r\nBDAT 6 LAST\r\nQUIT\r\nNOOP\r\n",
        "The chunk is swallowed and refused, and the session goes on (RFC 3030 §2). The others hang up.",
    ),
];
