"""libopendkim as a judge and a signer of many messages: one line on stdin for each, as dkim.py takes them; the first names a file of keys.

The library, and not its filter, which is given fields without the white space behind their colons. It is shown one signature at a
time: where one has no version, it looks at none of the others.
"""

import ctypes
import sys

import dkim

library = ctypes.CDLL("libopendkim.so.11")
P, S, I, Z = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_size_t
for name, result, words in [
    ("dkim_init", P, [P, P]),
    ("dkim_options", I, [P, I, I, P, Z]),
    ("dkim_sign", P, [P, S, P, S, S, S, I, I, I, ctypes.c_long, P]),
    ("dkim_verify", P, [P, S, P, P]),
    ("dkim_header", I, [P, S, Z]),
    ("dkim_eoh", I, [P]),
    ("dkim_body", I, [P, S, Z]),
    ("dkim_eom", I, [P, P]),
    ("dkim_getsighdr_d", I, [P, Z, P, P]),
    ("dkim_getsiglist", I, [P, P, P]),
    ("dkim_sig_process", I, [P, P]),
    ("dkim_sig_getflags", ctypes.c_uint, [P]),
    ("dkim_sig_getbh", I, [P]),
    ("dkim_sig_geterror", I, [P]),
    ("dkim_sig_geterrorstr", S, [I]),
    ("dkim_setpartial", I, [P, ctypes.c_bool]),
    ("dkim_free", I, [P]),
]:
    function = getattr(library, name)
    function.restype, function.argtypes = result, words

SET, QUERY_METHOD, QUERY_INFO, MIN_KEY_BITS = 1, 6, 7, 14
BY_FILE, PASSED, FORMS = 1, 4, {"simple": 0, "relaxed": 1}
ALGORITHMS = {"rsa-sha256": 1, "ed25519-sha256": 2}
handle = library.dkim_init(None, None)


def option(what, value):
    if isinstance(value, int):
        value = ctypes.byref(ctypes.c_uint(value))
        assert library.dkim_options(handle, SET, what, value, 4) == 0
    else:
        assert library.dkim_options(handle, SET, what, value, len(value)) == 0


def parts(file):
    """Fields without their line ends, and the body."""
    head, _, body = open(file, "rb").read().partition(b"\r\n\r\n")
    fields = []
    for line in head.split(b"\r\n"):
        if line[:1] in (b" ", b"\t") and fields:
            fields[-1] += b"\r\n" + line
        elif line:
            fields.append(line)
    # "If the body is non-empty but does not end with a CRLF, a CRLF is added" (RFC 6376 §3.4.3, §3.4.4): it adds none.
    return fields, body + (b"\r\n" if body and not body.endswith(b"\r\n") else b"")


def feed(message, fields, body):
    for field in fields:
        status = library.dkim_header(message, field, len(field))
        if status:
            return "field:%d" % status
    status = library.dkim_eoh(message)
    if status:
        return "header:%d" % status
    if body:
        library.dkim_body(message, body, len(body))
    library.dkim_eom(message, None)
    return None


def sign(file, selector, domain, algorithm, header, body_form, length, key):
    fields, body = parts(file)
    status = I()
    message = library.dkim_sign(
        handle, b"x", None, open(key, "rb").read(), selector.encode(), domain.encode(), FORMS[header],
        FORMS[body_form], ALGORITHMS[algorithm], -1, ctypes.byref(status),
    )
    assert message, status.value
    library.dkim_setpartial(message, length == "yes")
    problem = feed(message, fields, body)
    assert problem is None, (file, problem)
    text, size = S(), Z()
    assert library.dkim_getsighdr_d(message, 16, ctypes.byref(text), ctypes.byref(size)) == 0
    text = text.value[: size.value].replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    library.dkim_free(message)
    open(file, "wb").write(b"\r\n".join([b"DKIM-Signature: " + text, *fields]) + b"\r\n\r\n" + body)


def says(fields, body):
    status = I()
    message = library.dkim_verify(handle, b"x", None, ctypes.byref(status))
    try:
        problem = feed(message, fields, body)
        signatures, count = P(), I()
        if library.dkim_getsiglist(message, ctypes.byref(signatures), ctypes.byref(count)) or count.value != 1:
            return problem or "none"
        signature = ctypes.cast(signatures, ctypes.POINTER(P))[0]
        library.dkim_sig_process(message, signature)
        if not (library.dkim_sig_getflags(signature) & PASSED and library.dkim_sig_getbh(signature) == 0):
            error = library.dkim_sig_geterrorstr(library.dkim_sig_geterror(signature)) or b"fail"
            return error.decode().replace(" ", "_")
        return "partial" if is_partial(fields, body) else "pass"
    finally:
        library.dkim_free(message)


def is_partial(fields, body):
    """Whether not all of the body is signed (RFC 6376 §8.2): it counts it, we do not. The library does not say."""
    signature = next(field for field in fields if field.lower().startswith(b"dkim-signature"))
    tags = dkim.parse_tag_value(signature.partition(b":")[2])
    form = dkim.CanonicalizationPolicy.from_c_value(tags.get(b"c"))
    return b"l" in tags and int(tags[b"l"]) < len(form.canonicalize_body(body))


def verify(file):
    fields, body = parts(file)
    is_signature = [field.split(b":")[0].strip().lower() == b"dkim-signature" for field in fields]
    answers = []
    for place, is_one in enumerate(is_signature):
        if is_one:
            others = [field for at, field in enumerate(fields) if at == place or not is_signature[at]]
            answers.append(says(others, body))
    print(file, *answers)


option(QUERY_METHOD, BY_FILE)
option(QUERY_INFO, sys.stdin.readline().strip().encode())
option(MIN_KEY_BITS, 1024)
for line in sys.stdin:
    kind, *words = line.split()
    if kind == "sign":
        sign(*words)
    else:
        verify(*words)
