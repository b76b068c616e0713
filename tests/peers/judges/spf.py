"""pyspf as a judge: a world of records and questions about it on stdin, as JSON; an answer in each line.

Where pyspf is known to answer otherwise than RFC 7208, it is mended here, in its own text and by as little as can be: what it says
then has to be what we say, of every question. The answers of those that lack one of these tell where each of them matters.
"""

import json
import sys
import types

import spf

SOURCE = open(spf.__file__, encoding="utf-8").read()
# A name, and what stands in the place of what.
MENDED = {
    # §4.6.4, §5.2: what includes itself is a circle as others are, and ends at the limit, where evaluation comes to it.
    "recursion": [
        (
            "if mech != 'include':\n                        raise PermError('include has trivial recursion', mech)\n"
            "                    raise PermError('include mechanism missing domain', mech)",
            "if ':' not in mech:\n                        raise PermError('include mechanism missing domain', mech)",
        ),
    ],
    # §4.6.4: counted of evaluation is a redirect when it is followed.
    "redirect": [
        ("elif mod == 'redirect':\n                self.check_lookups()", "elif mod == 'redirect':"),
        (
            "                redirect_record = self.dns_spf(redirect)",
            "                self.check_lookups()\n                redirect_record = self.dns_spf(redirect)",
        ),
    ],
    # §4.6.4, looser than it is written there: whose the reverse zone is, is not for the domain to say, and hosts of `mx` that have
    # addresses of the other family are there.
    "void": [
        (
            "return [p for p in self.dns_ptr(self.i)[:max]\n            if self.cidrmatch(self.dns_a(p,self.A),cidrlength)]",
            "return [p for p in self.dns_ptr(self.i)[:max]\n            if self.cidrmatch(self.dns(p,self.A,ignore_void=True),cidrlength)]",
        ),
        (
            "return self.dns('%s.%s.arpa'%(reverse_dots(i),self.v), 'PTR')",
            "return self.dns('%s.%s.arpa'%(reverse_dots(i),self.v), 'PTR',ignore_void=True)",
        ),
        (
            "for a in self.dns_a(mx[1],self.A)]",
            "for a in self.dns(mx[1],self.A,ignore_void=mx[1] in DNSLookup.world)]",
        ),
    ],
    # §5.4, §4.6.4: hosts are looked up one after the other, until one matches.
    "exchanges": [
        (
            "if self.cidrmatch(self.dns_mx(arg), cidrlength):",
            "if any(self.cidrmatch(found, cidrlength) for found in self.dns_mx(arg)):",
        ),
        (
            "return [a for mx in mxnames[:max] for a in self.dns_a(mx[1],self.A)]",
            "return (self.dns_a(mx[1],self.A) for mx in mxnames[:max])",
        ),
        (
            "return [a for mx in mxnames[:max] for a in self.dns(mx[1],self.A,ignore_void=mx[1] in DNSLookup.world)]",
            "return (self.dns(mx[1],self.A,ignore_void=mx[1] in DNSLookup.world) for mx in mxnames[:max])",
        ),
    ],
    # §5.5: "If a DNS error occurs while doing the PTR RR lookup, then this mechanism fails to match. If a DNS error occurs while doing
    # an A RR lookup, then that domain name is skipped".
    "ptr": [
        ("    def dns_ptr(self, i):\n", "    @unless_it_fails\n    def dns_ptr(self, i):\n"),
        ("if self.cidrmatch(self.dns_a(p,self.A),cidrlength)]", "if self.has_address(p,cidrlength)]"),
        (
            "if self.cidrmatch(self.dns(p,self.A,ignore_void=True),cidrlength)]",
            "if self.has_address(p,cidrlength)]",
        ),
        (
            "    def validated_ptrs(self):\n",
            "    @unless_it_fails\n    def has_address(self, name, length):\n"
            "        return self.cidrmatch(self.dns(name,self.A,ignore_void=VOID_IS_MENDED),length)\n\n"
            "    def validated_ptrs(self):\n",
        ),
        (
            "class query(object):\n",
            "def unless_it_fails(ask):\n    def asked(*words):\n        try:\n            return ask(*words)\n"
            "        except TempError:\n            return []\n    return asked\n\nclass query(object):\n",
        ),
    ],
    # §6: "Unrecognized modifiers MUST be ignored no matter where, or how often, they appear in a record."
    "unknown modifiers": [("            if mod in modifiers:\n", "            if mod in modifiers and mod in ('redirect', 'exp'):\n")],
    # §7.1, §7.3: "if a DIGIT is specified, the value MUST be nonzero".
    "no labels": [
        (
            "    if ln: expansion =",
            "    if ln and int(ln) == 0: raise PermError('no labels', str)\n    if ln: expansion =",
        ),
    ],
}


class Lookup:
    """What the world says."""

    world = {}

    def __call__(self, name, qtype, strict=True, timeout=20):
        name = name.rstrip(".").lower()
        found = self.world.get(name, {})
        if "TIMEOUT" in found:
            raise self.failure("DNS timeout")
        answers = []
        for value in found.get(qtype, []):
            if qtype == "TXT":
                value = [value.encode("latin-1")]
            elif qtype == "MX":
                value = tuple(value)
            answers.append(((name, qtype), value))
        return answers


def mended(names):
    source, module = SOURCE, types.ModuleType("mended")
    for name in names:
        before = source
        for old, new in MENDED[name]:
            source = source.replace(old, new)
        assert source != before, "%s: pyspf is another one" % name
    module.__dict__["VOID_IS_MENDED"] = "void" in names
    exec(compile(source, "mended", "exec"), module.__dict__)
    module.DNSLookup = Lookup()
    module.DNSLookup.failure = module.TempError
    return module


def answer(module, case):
    module.DNSLookup.world = case["world"]
    query = module.query(
        case["address"], case["sender"], case["helo"], receiver="mx.example", strict=True, timeout=20
    )
    try:
        result, _, explanation = query.check()
    except Exception as error:
        result, explanation = "raised " + type(error).__name__ + ": " + str(error), ""
    return result, explanation


as_it_is, whole = mended([]), mended(MENDED)
lacking = {name: mended([other for other in MENDED if other != name]) for name in MENDED}
for line in sys.stdin:
    case = json.loads(line)
    says, matter = answer(whole, case), []
    if answer(as_it_is, case) != says:
        matter = [name for name, module in lacking.items() if answer(module, case) != says]
    print(json.dumps({"result": says[0], "explanation": says[1], "mended": matter}))
