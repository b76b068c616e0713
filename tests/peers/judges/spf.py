"""pyspf as a judge: a world of records and questions about it on stdin, as JSON; an answer in each line."""

import json
import sys

import spf

world = {}


def lookup(name, qtype, strict=True, timeout=20):
    name = name.rstrip(".").lower()
    found = world.get(name, {})
    if "TIMEOUT" in found:
        raise spf.TempError("DNS timeout")
    answers = []
    for value in found.get(qtype, []):
        if qtype == "TXT":
            value = [value.encode("latin-1")]
        elif qtype == "MX":
            value = tuple(value)
        answers.append(((name, qtype), value))
    return answers


spf.DNSLookup = lookup
for line in sys.stdin:
    case = json.loads(line)
    world = case["world"]
    query = spf.query(case["address"], case["sender"], case["helo"], receiver="mx.example", strict=True, timeout=20)
    try:
        result, _, explanation = query.check()
    except Exception as error:
        result, explanation = "raised " + type(error).__name__ + ": " + str(error), ""
    print(json.dumps({"result": result, "explanation": explanation}))
