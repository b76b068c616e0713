"""libopendmarc as a judge: what SPF and DKIM have found and a record on each line of stdin, as JSON; an answer for each."""

import ctypes
import json
import sys

library = ctypes.CDLL("libopendmarc.so.2")
library.opendmarc_policy_connect_init.restype = ctypes.c_void_p
OUTCOME = {"none": 0, "pass": 1, "fail": 2}
ANSWER = {14: "none", 15: "pass", 16: "reject", 17: "quarantine", 18: "fail"}
MAIL_FROM, IP4, MOZILLA = 1, 4, 1

# OPENDMARC_LIB_T: a kind, a path, no name servers.
settings = ctypes.create_string_buffer(16384)
settings[0:4] = MOZILLA.to_bytes(4, sys.byteorder)
path = sys.argv[1].encode()
settings[4 : 4 + len(path)] = path
assert library.opendmarc_policy_library_init(settings) == 0

for line in sys.stdin:
    case = json.loads(line)
    policy = ctypes.c_void_p(library.opendmarc_policy_connect_init(b"192.0.2.1", IP4))
    library.opendmarc_policy_store_from_domain(policy, case["from"].encode())
    domain, outcome = case["spf"]
    library.opendmarc_policy_store_spf(policy, domain.encode(), OUTCOME[outcome], MAIL_FROM, None)
    for domain, outcome in case["dkim"]:
        library.opendmarc_policy_store_dkim(policy, domain.encode(), b"s", OUTCOME[outcome], None)
    if case["record"] is None:
        print(json.dumps({"result": "none"}))
        continue
    organization = case["organization"] and case["organization"].encode()
    status = library.opendmarc_policy_store_dmarc(policy, case["record"].encode(), case["from"].encode(), organization)
    if status != 0:
        print(json.dumps({"result": "malformed %d" % status}))
    else:
        result = library.opendmarc_get_policy_to_enforce(policy)
        print(json.dumps({"result": ANSWER.get(result, str(result))}))
    library.opendmarc_policy_connect_shutdown(policy)
