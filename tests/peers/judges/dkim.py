"""dkimpy as a judge and a signer of many messages: one line on stdin for each.

sign   FILE SELECTOR DOMAIN ALGORITHM HEADER BODY LENGTH KEY    puts a signature before the message in FILE
verify FILE                                                     answers FILE and, for each signature, pass, fail or why not
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
    message = dkim.DKIM(open(file, "rb").read(), minkey=1024)
    names = [name.lower() for name, _ in message.headers]
    answers = []
    for index in range(names.count(b"dkim-signature")):
        try:
            answers.append("pass" if message.verify(index, found) else "fail")
        except Exception as error:
            answers.append(type(error).__name__ + ":" + str(error).replace(" ", "_"))
    print(file, *answers)


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
