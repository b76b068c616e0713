"""dkimpy as a judge and a signer of many messages: one line on stdin for each.

sign   FILE SELECTOR DOMAIN ALGORITHM HEADER BODY LENGTH KEY    puts a signature before the message in FILE
verify FILE                                                     answers FILE and, for each signature, pass, partial, fail or why not
"""

import sys

import dkim

records = {}


def found(name, timeout=5):
    return records.get(name.decode().rstrip(".").lower(), "").encode() or None


def sign(file, selector, domain, algorithm, header, body, length, key):
    message = open(file, "rb").read()
    signature = dkim.sign(
        message,
        selector.encode(),
        domain.encode(),
        open(key, "rb").read().strip(),
        canonicalize=(header.encode(), body.encode()),
        signature_algorithm=algorithm.encode(),
        length=length == "yes",
    )
    open(file, "wb").write(signature + message)


def verify(file):
    message = open(file, "rb").read()
    # "If the body is non-empty but does not end with a CRLF, a CRLF is added" (RFC 6376 §3.4.4), before white space at the end of
    # lines is left out: it does so behind.
    if not message.endswith(b"\r\n"):
        message += b"\r\n"
    message = dkim.DKIM(message, minkey=1024)
    signatures = [value for name, value in message.headers if name.lower() == b"dkim-signature"]
    answers = []
    for index, signature in enumerate(signatures):
        try:
            answer = "pass" if message.verify(index, found) else "fail"
        except Exception as error:
            answer = type(error).__name__ + ":" + str(error).replace(" ", "_")
        answers.append("partial" if answer == "pass" and is_partial(message.body, signature) else answer)
    print(file, *answers)


def is_partial(body, signature):
    """Whether not all of the body is signed (RFC 6376 §8.2): it counts it, we do not."""
    tags = dkim.parse_tag_value(signature)
    form = dkim.CanonicalizationPolicy.from_c_value(tags.get(b"c"))
    return b"l" in tags and int(tags[b"l"]) < len(form.canonicalize_body(body))


for line in sys.stdin:
    kind, *words = line.split()
    if kind == "record":
        records[words[0]] = " ".join(words[1:])
    elif kind == "sign":
        sign(*words)
    else:
        try:
            verify(*words)
        except Exception as error:
            print(words[0], "message:" + type(error).__name__)
