//! Every key of the configuration is in force after a reload, or waits for a restart and is named.

use std::collections::BTreeMap;

use config::{Loaded, Source, Takes};

use super::*;

const SHARDS: usize = 2;

/// What the server is started with: one of each. Of two exact domains of routes, the words would come in any order.
const STARTED: &str = r#"
[[listener]]
name = "l"
address = ["127.0.0.1:2525"]
[[certificate]]
name = "c"
certificate = "c.pem"
key = "k.pem"
[[etrn]]
name = "e"
networks = ["192.0.2.0/24"]
certificates = ["sha256:2222222222222222222222222222222222222222222222222222222222222222"]
domains = ["example.org"]
[[domain]]
name = "example.org"
[[api-key]]
name = "k"
hash = "sha256:0000000000000000000000000000000000000000000000000000000000000000"
domains = ["example.org"]
[[route]]
name = "r"
domains = ["*.example.net"]
via = "hop"
hosts = ["192.0.2.1"]
[[route]]
name = "m"
domains = ["*"]
[[program]]
name = "pr"
command = ["/bin/true"]
[[program]]
name = "pr2"
command = ["/bin/true"]
[[endpoint]]
name = "en"
url = "https://in.example.org/"
[[endpoint]]
name = "en2"
url = "https://in.example.org/"
[[reply-rule]]
name = "q"
codes = [450]
[[retry]]
name = "w"
retry = ["1h"]
[[site]]
name = "p"
hosts = ["*.example.org"]
[[author-rule]]
name = "a"
domains = ["example.net"]
[[dkim]]
name = "d"
domain = "example.org"
selector = "s-{date}"
rotate = "30d"
[[dns-provider]]
name = "ns"
server = "192.0.2.53:53"
tsig-name = "k"
secret-file = "p"
[[tenant]]
name = "t"
networks = ["192.0.2.0/24"]
[[campaign]]
name = "m"
values = ["news-*"]
[[credential]]
name = "c"
user = "ann"
password-file = "p"
[[credential]]
name = "other"
user = "ann"
password-file = "p"
[[source]]
name = "s"
address = ["192.0.2.1"]
[[source]]
name = "s2"
address = ["192.0.2.2"]
[[pool]]
name = "pl"
sources = ["s"]
[[pool]]
name = "pl2"
sources = ["s2"]
[[warm-up]]
name = "w"
source = "s"
start = "2026-12-01"
caps = [5]
[[dns-list]]
name = "dl"
zone = "list.example.org"
[[dnsbl]]
name = "b"
zone = "bl.example.org"
"#;

/// Each key with another value. What follows a bar is what the value cannot do without: it stands in the configuration
/// before the change as well.
const OTHERS: &str = r#"
hostname = "mx.example.org"
data-directory = "elsewhere"
user = "mail"
group = "mail" | user = "daemon"
allow-root = true
cores.count = 2
cores.spare = 1
cores.pin = false
cores.cpus = [1]
cores.balance = false
ring.depth = 512
ring.io-memory = "2MiB"
ring.spin = "1ms"
buffers.small = "16KiB"
buffers.large = "128KiB"
buffers.budget = "256MiB"
buffers.free = "16MiB"
buffers.send = "64KiB"
descriptors.reserve = 100
journal.shards = 32
journal.segment-size = "32MiB"
journal.segments-max = 1000
journal.disk-max = "2TiB"
journal.reserve = "8MiB"
journal.direct = false
journal.ready = 3
journal.spill = "2MiB"
journal.rescue-share = 30
index.cache = "32MiB"
index.checkpoint-interval = "30s"
listener.address = ["127.0.0.1:2526"]
listener.unix-mode = "0600" | address = ["unix:/run/s"]
listener.unix-owner = "mail" | address = ["unix:/run/s"]
listener.unix-group = "mail" | address = ["unix:/run/s"]
listener.kind = "submission"
listener.tls = "implicit"
listener.client-certificate = "request"
listener.proxy-networks = ["192.0.2.0/24"]
listener.xclient-networks = ["192.0.2.0/24"]
listener.xforward-networks = ["192.0.2.0/24"]
listener.backlog = 128
listener.bare-line-ends = "accept"
listener.nul-bytes = "accept"
listener.long-lines = "refuse"
listener.extensions.pipelining = false
listener.extensions.size = false
listener.extensions.8bitmime = false
listener.extensions.smtputf8 = false
listener.extensions.chunking = false
listener.extensions.dsn = false
listener.extensions.enhancedstatuscodes = false
listener.extensions.binarymime = true
listener.extensions.deliverby = false
listener.extensions.mt-priority = false
listener.extensions.futurerelease = false
listener.extensions.requiretls = false
listener.extensions.limits = false
listener.checks.malformed-names = "refuse"
listener.checks.unqualified-names = "refuse"
listener.checks.foreign-literals = "refuse"
listener.checks.our-name = "refuse"
listener.checks.missing-fields = "refuse"
listener.checks.repeated-fields = "refuse"
listener.checks.malformed-fields = "refuse"
listener.checks.eight-bit-fields = "refuse"
listener.checks.reports-for-many = "refuse"
listener.checks.reverse-name = "look"
listener.extensions.etrn = false
listener.extensions.atrn = false | client-certificate = "request"
listener.limits.connections-max = 7
listener.limits.connections-per-client-max = 7
listener.limits.connections-per-network-max = 7
listener.limits.connection-rate-per-client = 7
listener.limits.connection-rate-per-network = 7
listener.limits.recipients-max = 700
listener.limits.message-size-max = "7MiB"
listener.limits.command-line-max = "7KiB"
listener.limits.proxy-header-max = "7KiB"
listener.limits.header-size-max = "70KiB"
listener.limits.errors-max = 7
listener.limits.tarpit-after = 7
listener.limits.commands-max = 7000
listener.limits.transactions-max = 7
listener.limits.recipients-per-session-max = 700
listener.limits.recipients-refused-max = 70
listener.limits.message-rate-per-client = 7
listener.limits.message-rate-per-network = 7
listener.limits.recipient-rate-per-client = 7
listener.limits.recipient-rate-per-network = 7
listener.limits.data-rate-min = "7KiB"
listener.limits.discard-max = "7MiB"
listener.limits.received-max = 107
listener.limits.hold-max = "7h"
listener.timeouts.command = "7s"
listener.timeouts.data-block = "7s"
listener.timeouts.data-grace = "7s"
listener.timeouts.proxy-header = "7s"
listener.timeouts.handshake = "7s"
listener.timeouts.greeting-delay = "7s"
listener.timeouts.tarpit = "7s"
listener.timeouts.send = "7s"
listener.timeouts.session = "7h"
tls.min-version = "1.3"
tls.watch-interval = ""
tls.suites = ["TLS_AES_128_GCM_SHA256"]
tls.groups = ["x25519"]
authentication.verify = false
authentication.authserv-id = "mx.example"
authentication.dry-run = true
authentication.unsubscribe-result = false
authentication.spf-fail = "refuse"
authentication.spf-softfail = "tag"
authentication.spf-permerror = "tag"
authentication.dkim-fail = "tag"
authentication.dmarc-reject = "refuse"
authentication.dmarc-quarantine = "quarantine"
authentication.no-author = "refuse"
authentication.deceptive-author = "refuse"
authentication.deceptive-name = "refuse"
authentication.deceptive-domain = "refuse"
authentication.deceptive-fields = "refuse"
authentication.irregular-fields = "tag"
authentication.unknown = "defer"
authentication.trusted-sealers = ["example.org"]
authentication.seal = "d"
author-rule.domains = ["example.com"]
author-rule.not-passed = "refuse"
authentication.received-spf = false
authentication.lookups-max = 7
authentication.lookup-time-max = "7s"
authentication.signatures-max = 7
authentication.rsa-bits-min = 2048
authentication.sha1 = true
authentication.body-length = true
authentication.bimi = "record"
listener.strangers.lookup-time-max = "7s"
listener.strangers.refuse-at = 7
listener.strangers.defer-at = 7
listener.strangers.quarantine-at = 7
listener.strangers.tag-at = 7
listener.strangers.dry-run = true
listener.strangers.lists = []
listener.greylist.enabled = true
listener.greylist.delay = "7s" | greylist.enabled = true
listener.greylist.window = "7h" | greylist.enabled = true
listener.greylist.lifetime = "7h" | greylist.enabled = true
listener.greylist.clients-after = 7 | greylist.enabled = true
listener.greylist.score-min = 7 | greylist.enabled = true
listener.greylist.spf = "pass" | greylist.enabled = true
listener.greylist.pass = ["example.com"] | greylist.enabled = true
listener.greylist.dry-run = true | greylist.enabled = true
listener.authentication.verify = false
listener.authentication.authserv-id = "mx.example"
listener.authentication.dry-run = true
listener.authentication.unsubscribe-result = false
listener.authentication.spf-fail = "refuse"
listener.authentication.spf-softfail = "tag"
listener.authentication.spf-permerror = "tag"
listener.authentication.dkim-fail = "tag"
listener.authentication.dmarc-reject = "refuse"
listener.authentication.dmarc-quarantine = "quarantine"
listener.authentication.no-author = "refuse"
listener.authentication.deceptive-author = "refuse"
listener.authentication.deceptive-name = "refuse"
listener.authentication.deceptive-domain = "refuse"
listener.authentication.deceptive-fields = "refuse"
listener.authentication.irregular-fields = "tag"
listener.authentication.unknown = "defer"
listener.authentication.trusted-sealers = ["example.org"]
listener.authentication.seal = "d"
listener.authentication.received-spf = false
listener.authentication.lookups-max = 7
listener.authentication.lookup-time-max = "7s"
listener.authentication.signatures-max = 7
listener.authentication.rsa-bits-min = 2048
listener.authentication.sha1 = true
listener.authentication.bimi = "record"
listener.authentication.body-length = true
dkim.domain = "example.com"
dkim.selector = "s2-{date}"
dkim.key = "other.pem" | dkim.rotate = "" | dkim.key = "dkim.pem"
dkim.rotate = "60d"
dkim.algorithms = ["rsa2048", "ed25519"]
dkim.publish = "ns"
dkim-rotation.directory = "keys"
dkim-rotation.interval = "10m"
dkim-rotation.settle = "2h"
dkim-rotation.retire = "21d"
dkim-rotation.revoke = "1d"
dkim-rotation.overdue = "12h"
dns-provider.kind = "cloudflare"
dns-provider.zone = "org"
dns-provider.server = "192.0.2.54:53"
dns-provider.tsig-name = "k2"
dns-provider.tsig-algorithm = "hmac-sha512"
dns-provider.secret-file = "q"
dns-provider.url = "https://api.example.org/v4"
dns-provider.ttl = "60s"
dns-provider.timeout = "10s"
dkim.authors = ["*.example.org"]
dkim.tenants = ["t"]
dkim.senders = ["example.org"]
dkim.when = "X-A: b"
dkim.header = "simple"
dkim.body = "simple"
dkim.fields = ["Subject"]
dkim.sealed = ["Subject"]
dkim.lifetime = "7d"
dkim.identity = "@example.org"
certificate.certificate = "c2.pem"
certificate.key = "k2.pem"
certificate.domains = ["example.com"]
clients.allow = ["192.0.2.0/24"]
clients.deny = ["192.0.2.0/24"]
clients.deny-names = ["*.example.com"]
clients.connections-max = 7
senders.deny = ["example.com"]
senders.allow = ["ann@example.com"]
clients.connection-rate = 7
clients.network-v4 = 25
clients.network-v6 = 48
clients.tracked-max = 7000
limits.connections-max = 7
limits.connections-per-client-max = 7
limits.connections-per-network-max = 7
limits.connection-rate-per-client = 7
limits.connection-rate-per-network = 7
limits.recipients-max = 700
limits.message-size-max = "7MiB"
limits.command-line-max = "7KiB"
limits.proxy-header-max = "7KiB"
limits.header-size-max = "70KiB"
limits.errors-max = 7
limits.tarpit-after = 7
limits.commands-max = 7000
limits.transactions-max = 7
limits.recipients-per-session-max = 700
limits.recipients-refused-max = 70
limits.message-rate-per-client = 7
limits.message-rate-per-network = 7
limits.recipient-rate-per-client = 7
limits.recipient-rate-per-network = 7
limits.data-rate-min = "7KiB"
limits.discard-max = "7MiB"
limits.received-max = 107
limits.hold-max = "7h"
timeouts.inbound.command = "7s"
timeouts.inbound.data-block = "7s"
timeouts.inbound.data-grace = "7s"
timeouts.inbound.proxy-header = "7s"
timeouts.inbound.handshake = "7s"
timeouts.inbound.greeting-delay = "7s"
timeouts.inbound.tarpit = "7s"
timeouts.inbound.send = "7s"
timeouts.inbound.session = "7h"
timeouts.outbound.connect = "7s"
timeouts.outbound.attempt-delay = "7s"
timeouts.outbound.handshake = "7s"
timeouts.outbound.greeting = "7s"
timeouts.outbound.ehlo = "7s"
timeouts.outbound.mail = "7s"
timeouts.outbound.rcpt = "7s"
timeouts.outbound.data = "7s"
timeouts.outbound.block = "7s"
timeouts.outbound.final = "7s"
relay.networks = ["10.0.0.0/8"]
etrn.networks = ["198.51.100.0/24"]
etrn.certificates = ["sha256:1111111111111111111111111111111111111111111111111111111111111111"]
etrn.domains = ["example.com"]
relay.certificates = ["sha256:1111111111111111111111111111111111111111111111111111111111111111"]
relay.authorities = ["clients.pem"]
domain.kind = "local"
domain.recipients = ["ann"]
domain.verify = "127.0.0.1:10025"
domain.subaddress = "+"
domain.reports = "refuse"
verify.timeout = "7s"
verify.on-failure = "accept"
verify.found-time = "7s"
verify.absent-time = "7s"
verify.cache-max = 7
verify.connections-max = 7
route.domains = ["example.com"]
route.via = "discard" | via = "mx" | hosts = []
route.program = "pr2" | via = "pipe" | program = "pr" | hosts = []
route.endpoint = "en2" | via = "http" | endpoint = "en" | hosts = []
program.command = ["/bin/false"]
program.user = "mail"
program.group = "mail" | program.user = "nobody"
program.directory = "/tmp"
program.environment = ["A=b"]
program.timeout = "7s"
program.output-max = "7KiB"
program.linger = "7s"
program.grace = "7s"
program.recipients-max = 7
program.line-ends = "crlf"
program.return-path = false
program.delivered-to = false
program.mbox-from = true
program.permanent = [67]
program.memory-max = "70MiB"
program.file-max = "70MiB"
program.cpu-max = "7s"
program.new-privileges = true
endpoint.url = "https://in.example.com/" | route.via = "http" | route.endpoint = "en" | route.hosts = []
endpoint.body = "json" | route.via = "http" | route.endpoint = "en" | route.hosts = []
endpoint.headers = ["A: b"] | route.via = "http" | route.endpoint = "en" | route.hosts = []
endpoint.credential = "c" | route.via = "http" | route.endpoint = "en" | route.hosts = []
endpoint.secret-file = "s" | route.via = "http" | route.endpoint = "en" | route.hosts = []
endpoint.recipients-max = 7 | route.via = "http" | route.endpoint = "en" | route.hosts = []
endpoint.timeout = "7s" | route.via = "http" | route.endpoint = "en" | route.hosts = []
endpoint.permanent = [410] | route.via = "http" | route.endpoint = "en" | route.hosts = []
route.hosts = ["192.0.2.2"]
route.port = 26 | via = "mx" | hosts = []
route.tls = "none"
route.mta-sts = false | via = "mx" | hosts = []
route.client-certificate = "c2.pem" | client-key = "k.pem" | client-certificate = "c.pem"
route.client-key = "k2.pem" | client-certificate = "c.pem" | client-key = "k.pem"
route.concurrency-max = 7
route.idle = "7s"
route.transactions-max = 7
route.chunking = false
route.chaining = true
route.xforward = true
route.8bit = "refuse"
route.source-address = ["127.0.0.2"]
route.verp = true
route.credential = "other" | via = "hop" | tls = "verified" | hosts = ["192.0.2.2"]
credential.user = "bob"
credential.password-file = "p2"
credential.password-env = "P2" | password-file = "" | password-env = "P"
credential.token-file = "t2" | password-file = "" | token-file = "t"
credential.token-program = "pr2" | password-file = "" | token-program = "pr"
credential.token-lifetime = "7m"
credential.token-timeout = "7s"
credential.mechanisms = ["plain"]
credential.secrecy = "none"
credential.refused = "fail"
route.pool = "pl"
route.srs = true
srs.domain = "f.example.org"
srs.secrets = ["0123456789abcdef"] | srs.domain = "f.example.org"
srs.lifetime = "7d" | srs.domain = "f.example.org"
bounces.domain = "b.example.org"
bounces.secret = "0123456789abcdef" | bounces.domain = "b.example.org"
bounces.local-part = "returned" | bounces.domain = "b.example.org"
bounces.complaints = "fbl" | bounces.domain = "b.example.org"
bounces.lifetime = "7d" | bounces.domain = "b.example.org"
bounces.unsigned = "ignore" | bounces.domain = "b.example.org"
retry.categories = ["quota"]
retry.statuses = ["4.2.*"]
retry.reply-rules = ["q"]
retry.sites = ["p"]
retry.routes = ["r"]
retry.domains = ["example.com"]
retry.priorities = ["bulk"]
retry.senders = "null"
retry.first = "7m"
retry.hint = true
retry.retry = ["7m"]
retry.retry-max = "7h"
retry.give-up = "7h"
site.hosts = ["*.example.com"]
site.domains = ["example.com"]
site.connections-max = 7
site.connection-rate = "7/s"
site.message-rate = "7/s"
site.transactions-max = 7
site.recipients-per-transaction = 7
site.idle = "7s"
site.tls = "required"
site.pool = "pl"
source.address = ["192.0.2.3"]
source.public-address = ["192.0.2.3"]
source.ehlo-name = "out.example.org"
source.client-certificate = "c2.pem" | client-key = "k.pem" | client-certificate = "c.pem"
source.client-key = "k2.pem" | client-certificate = "c.pem" | client-key = "k.pem"
source.proxy = "192.0.2.9:1080"
source.proxy-protocol = "haproxy-v2" | proxy = "192.0.2.9:1080"
source.proxy-user = "ann" | proxy = "192.0.2.9:1080" | proxy-password = "hush" | proxy-user = "bob"
source.proxy-password = "other" | proxy = "192.0.2.9:1080" | proxy-user = "ann" | proxy-password = "hush"
source.connections-max = 7
source.message-rate = "7/s"
pool.sources = ["s:2", "s2"]
warm-up.source = "s2"
warm-up.site = "p"
warm-up.start = "2026-12-02"
warm-up.caps = [7]
warm-up.overflow = "pl2"
warm-up.complaints-max = 7
warm-up.refusals-max = 7
warm-up.sample = 7
warm-up.pause = "7h"
dnsbl.zone = "other.example.org"
dnsbl.answers = ["127.0.0.2/32"]
dnsbl.action = "stop"
dns-list.zone = "other.example.org"
dns-list.subjects = ["ehlo-name"]
dns-list.weight = -7
dns-list.codes = ["127.0.0.2=5"]
dns-list.explain = true
dns-list.probe-interval = "7s"
dns-list.rest = "7s"
greylist.enabled = true
greylist.delay = "7s" | greylist.enabled = true
greylist.window = "7h" | greylist.enabled = true
greylist.lifetime = "7h" | greylist.enabled = true
greylist.clients-after = 7 | greylist.enabled = true
greylist.score-min = 7 | greylist.enabled = true
greylist.spf = "pass" | greylist.enabled = true
greylist.pass = ["example.com"] | greylist.enabled = true
greylist.dry-run = true | greylist.enabled = true
clients.greylisted-max = 7000
reputation.mode = "watch"
reputation.half-life = "7h"
reputation.sample = 7
reputation.weight-max = 7
reputation.entries-max = 7000
reputation.asn-database = "asn.mmdb"
reputation.asn-weight-max = 7
strangers.lists = []
strangers.lookup-time-max = "7s"
strangers.refuse-at = 7
strangers.defer-at = 7
strangers.quarantine-at = 7
strangers.tag-at = 7
strangers.dry-run = true
egress.probe-interval = "7s"
egress.probe-timeout = "7s"
egress.dnsbl-interval = "7s"
deliverability.domains = ["example.org"]
deliverability.interval = "7m"
deliverability.addresses = ["192.0.2.1"]
deliverability.connect = false
deliverability.port = 2525
deliverability.timeout = "7s"
throttle.enabled = false
throttle.connections-min = 7
throttle.rate-min = "7/m"
throttle.round = "7s"
throttle.steps = 7
throttle.storm-min = 7
throttle.storm-percent = 7
throttle.settle = "7s"
throttle.unconnected-max = 7
throttle.suspend-min = "7s"
throttle.suspend-max = "7h"
tenant.weight = 7
tenant.networks = ["198.51.100.0/24"]
tenant.certificates = ["sha256:1111111111111111111111111111111111111111111111111111111111111111"]
tenant.api-keys = ["k"]
tenant.senders = ["example.com"]
tenant.suppression = "drop"
tenant.unsubscribe = "all" | tenant.suppression = "drop" | unsubscribe.url = "https://example.org/u" | unsubscribe.secrets = ["0123456789abcdef"]
tenant.unsubscribe-check = "log"
tenant.hourly-max = 7
tenant.daily-max = 7
tenant.monthly-max = 7
tenant.quota-excess = "report" | tenant.hourly-max = 7
tenant.quota-warning = 70 | tenant.hourly-max = 7
tenant.duplicate-window = "1h"
campaign.values = ["sale-*"]
campaign.tenants = ["t"]
campaign.pool = "pl"
queue.campaign-header = "X-Mailing"
site.tenants = ["t"]
site.campaigns = ["m"]
retry.tenants = ["t"]
retry.campaigns = ["m"]
reply-rule.tenants = ["t"]
reply-rule.campaigns = ["m"]
suppression.local-part-case = "kept"
suppression.bounce-categories = ["quota"]
suppression.bounce-lifetime = "7d"
suppression.complaint-lifetime = "7d"
suppression.unsubscribe-lifetime = "7d"
suppression.entries-max = 7000
unsubscribe.url = "https://example.org/u" | unsubscribe.secrets = ["0123456789abcdef"]
unsubscribe.secrets = ["0123456789abcdef"]
unsubscribe.field = "X-Campaign"
unsubscribe.bulk-marks = ["list-id"]
unsubscribe.requests-max = 7
unsubscribe.address = ["127.0.0.1:8083"]
duplicates.entries-max = 7000
tenant.pool = "pl"
queue.provider-rules = false
reply-rule.codes = [451]
reply-rule.statuses = ["5.1.*"]
reply-rule.text = ["come back later"]
reply-rule.domains = ["example.com"]
reply-rule.hosts = ["*.example.com"]
reply-rule.stages = ["rcpt"]
reply-rule.category = "rate"
reply-rule.action = "slower"
reply-rule.suspend = "7h" | action = "suspend"
reply-rule.pool = "pl"
reply-rule.example = "450 later"
outbound-tls.public-authorities = false | outbound-tls.authorities = ["ca.pem"]
outbound-tls.authorities = ["ca2.pem"]
tls-reports.enabled = true
tls-reports.contact = "tls@example.org"
tls-reports.organization = "Example"
tls-reports.jitter = "7s"
tls-reports.days-max = 7
dmarc-reports.enabled = true
dmarc-reports.contact = "dmarc@example.org"
dmarc-reports.organization = "Example"
dmarc-reports.jitter = "7s"
dmarc-reports.days-max = 7
dmarc-reports.domains-max = 700 | dmarc-reports.enabled = true
dmarc-reports.rows-max = 700 | dmarc-reports.enabled = true
dmarc-reports.size-max = "7MiB" | dmarc-reports.enabled = true
dmarc-failures.enabled = true
dmarc-failures.contact = "dmarc@example.org"
dmarc-failures.redaction-key = "0123456789abcdef"
dmarc-failures.subject = true
dmarc-failures.header-max = "7KiB"
dmarc-failures.repeat = "7m"
dmarc-failures.hourly-max = 7
dmarc-failures.daily-max = 7
dmarc-failures.domain-hourly-max = 7
dmarc-failures.domain-daily-max = 7
dmarc-failures.destination-hourly-max = 7
dmarc-failures.destination-daily-max = 7
dmarc-failures.tracked-max = 700
reports-in.addresses = ["dmarc@example.org"]
reports-in.domains = ["*.example.org"]
reports-in.forward = "ann@example.org"
reports-in.forwarded = "all"
reports-in.keep = "7d"
reports-in.disk-max = "7MiB"
reports-in.reports-max = 700
reports-in.mail-max = "7MiB"
reports-in.expanded-max = "7MiB"
reports-in.rows-max = 700
reports-in.https = true
reports-in.posts-max = 7
reports-in.http-address = ["127.0.0.1:8084"]
bimi.authorities = ["m.pem"]
bimi.timeout = "7s"
bimi.size-max = "7KiB"
bimi.keep = "7h"
bimi.retry = "7h"
bimi.kept-max = 700
bimi.memory-max = "7MiB"
bimi.private-servers = true
mta-sts.timeout = "7s"
mta-sts.port = 8443
mta-sts.policies-max = 700
dns.servers = ["192.0.2.53:53"]
dns.trust-ad = true | dns.servers = ["192.0.2.53:53"]
dns.timeout = "7s"
dns.attempts = 7
dns.sockets = 7
dns.streams = 7
dns.cache-size = "7MiB"
dns.ttl-min = "7s"
dns.ttl-max = "7h"
dns.negative-ttl-max = "7m"
dns.failure-ttl = "7s"
dns.hosts = { "mx.example" = ["192.0.2.7"] }
dns.sockets = 7
dns.streams = 7
queue.retry = ["7m"]
queue.retry-max = "7h"
queue.jitter = 7
queue.give-up = "7d"
queue.bounce-give-up = "7h"
queue.delay-warning = "7h"
queue.grace = "7m"
queue.destination-retry-min = "7s"
queue.destination-retry-max = "7m"
queue.recipients-max = 7000
queue.attempts-max = 7
queue.connection-turn = "3s"
queue.task-share = 7
queue.greylist-retry = "7m"
queue.recipients-per-transaction = 7
http.address = ["127.0.0.1:8081"]
http.token = "0123456789abcdef"
http.mail-address = ["127.0.0.1:8082"]
http.request-size-max = "1MiB"
http.memory = "512MiB"
http.batch-max = 7
http.json-values-max = 7000
http.body-timeout = "7s"
http.idempotency-time = "7h"
http.idempotency-memory = "7MiB"
api-key.hash = "sha256:1111111111111111111111111111111111111111111111111111111111111111"
api-key.domains = ["example.com"]
api-key.addresses = ["ann@example.com"]
api-key.networks = ["192.0.2.0/24"]
api-key.messages-per-minute = 7
api-key.recipients-per-minute = 7
api-key.recipients-max = 7
api-key.message-size-max = "7KiB"
log.format = "json"
log.output = "log"
log.level = "debug"
log.libraries = "info"
log.buffer = "2MiB"
shutdown.grace = "7s"
upgrade.enabled = false
upgrade.start-max = "10s"
upgrade.patience = "5m"
hardening.files = false
hardening.calls = false
hardening.core-dumps = true
"#;

/// A configuration with these keys as they are told.
fn with(lines: &[(&str, &str)]) -> Loaded {
    let entries = [
        "listener",
        "certificate",
        "domain",
        "route",
        "api-key",
        "etrn",
        "reply-rule",
        "retry",
        "site",
        "tenant",
        "campaign",
        "dkim",
        "credential",
        "program",
        "endpoint",
        "author-rule",
        "source",
        "pool",
        "warm-up",
        "dnsbl",
        "dns-list",
        "dns-provider",
    ];
    let mut first = String::new();
    let mut all = STARTED.to_owned();
    for (key, value) in lines {
        match key.split_once('.') {
            Some((entry, key)) if entries.contains(&entry) => {
                let head = format!("[[{entry}]]\n");
                let at = all.find(&head).unwrap() + head.len();
                let old = all[at..].split("\n\n").next().unwrap();
                let end = old.find("[[").unwrap_or(old.len());
                let kept: String = old[..end]
                    .lines()
                    .filter(|line| line.split(" = ").next() != Some(key))
                    .map(|line| format!("{line}\n"))
                    .collect();
                all.replace_range(at..at + end, &format!("{kept}{key} = {value}\n"));
            }
            Some(_) | None => first += &format!("{key} = {value}\n"),
        }
    }
    let text = format!("{first}{all}");
    let source = Source { file: "/etc/ringpost/ringpost.toml".into(), text: text.clone() };
    Loaded::from_sources(&[source]).unwrap_or_else(|errors| panic!("{errors:?}\n{text}"))
}

/// Each with the same key, whatever file it is to be read from.
fn signers_of(config: &Config) -> Signers {
    const KEY: &str = "-----BEGIN PRIVATE KEY-----\n\
                       MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n\
                       -----END PRIVATE KEY-----\n";
    let key = trust::Key::parse(KEY).unwrap();
    let signer = |dkim: &config::Dkim| {
        let selector = dkim.selector_of(config::DkimAlgorithm::Rsa2048, 20_261_129, 1);
        crate::signers::of(dkim, key.clone(), &selector).unwrap()
    };
    config.dkim.iter().map(|dkim| [signer(dkim)].into()).collect()
}

/// All that a reload brings into force, in words.
fn effects(config: &Config) -> String {
    let ours = Ours::new(config);
    let (chain, key) = tls::self_signed(&["mx.example.org".to_owned()]).unwrap();
    let papers = Papers {
        certificates: Some(Arc::new(Certificates::from_pem(chain.as_bytes(), key.as_bytes()).unwrap())),
        authorities: Authorities::of(Public::Ignored),
        identities: BTreeMap::new(),
        marks: MarkJudge::new(Authorities::of(Public::Ignored)),
        credentials: Arc::default(),
        signers: signers_of(config),
        tickets: Tickets::new().unwrap(),
    };
    let snapshot = ours.snapshot(Arc::new(config.clone()), &papers).unwrap();
    format!("{ours:?} {}", shard::effects(&snapshot))
}

#[test]
fn every_key_is_in_force_after_a_reload_or_named() {
    tls::install_provider();
    let others: BTreeMap<&str, Vec<&str>> = OTHERS
        .lines()
        .filter_map(|line| line.split_once(" = ").map(|(key, _)| (key, line.split(" | ").collect())))
        .collect();
    let mut keys = Config::keys();
    // Another name is another entry; they come and go below.
    keys.retain(|(key, _)| !key.ends_with(".name"));
    let known: Vec<_> = keys.iter().map(|(key, _)| key.as_str()).collect();
    let unknown: Vec<_> = others.keys().filter(|key| !known.contains(key)).collect();
    assert!(unknown.is_empty(), "no such keys: {unknown:?}");
    let mut wrong = Vec::new();
    for (key, takes) in &keys {
        let Some(lines) = others.get(key.as_str()) else {
            wrong.push(format!("{key}: give another value for it here, and see that a reload takes it"));
            continue;
        };
        let parent = key.split_once('.').map_or("", |(entry, _)| entry);
        let mut lines: Vec<(String, &str)> = lines
            .iter()
            .map(|line| {
                let (name, value) = line.split_once(" = ").unwrap();
                let parents = ["listener", "route", "reply-rule", "credential", "source"];
                let whole = name == key || !parents.contains(&parent);
                (if whole { name.to_owned() } else { format!("{parent}.{name}") }, value)
            })
            .collect();
        // The key itself comes last, and so holds.
        let change: Vec<_> = lines.iter().rev().map(|(key, value)| (key.as_str(), *value)).collect();
        let new = with(&change);
        lines.remove(0);
        let before: Vec<_> = lines.iter().map(|(key, value)| (key.as_str(), *value)).collect();
        let started = with(&before).config;
        assert_ne!(new.config, started, "{key}: the value here is the one that it has anyway");
        let Change { config, pending } =
            new.change(&started, SHARDS).unwrap_or_else(|errors| panic!("{key}: {errors:?}"));
        let (old, now) = (effects(&started), effects(&config));
        assert_eq!(old, effects(&started), "what is in force has no words of its own");
        let name =
            ["listener", "certificate", "domain", "route", "api-key", "etrn", "reply-rule", "credential"]
                .iter()
                .zip(["l", "c", "example.org", "r", "k", "e", "q", "c"])
                .find(|(entry, _)| **entry == parent)
                .map_or(key.clone(), |(entry, name)| key.replacen(entry, &format!("{entry}.{name}"), 1));
        match (takes, &pending[..], old == now) {
            (Takes::Restart, [named], true) if *named == name && config == started => {}
            (Takes::Reload, [], false) if config == new.config => {}
            (takes, pending, same) => wrong.push(format!(
                "{key}: it takes a {takes:?}, waits: {pending:?}, changes something: {}",
                if same { "no" } else { "yes" }
            )),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn entries_come_and_go() {
    tls::install_provider();
    let started = with(&[]);
    let more = |text: &str| {
        let source =
            Source { file: "/etc/ringpost/ringpost.toml".into(), text: format!("{STARTED}\n{text}") };
        Loaded::from_sources(&[source]).unwrap()
    };
    for (entry, waits) in [
        ("[[domain]]\nname = \"example.com\"", false),
        ("[[route]]\nname = \"s\"\ndomains = [\"example.com\"]", false),
        ("[[reply-rule]]\nname = \"s\"\ncodes = [452]", false),
        ("[[retry]]\nname = \"s\"\nhint = true", false),
        ("[[certificate]]\nname = \"d\"\ncertificate = \"d.pem\"\nkey = \"e.pem\"", false),
        ("[[listener]]\nname = \"s\"\naddress = [\"127.0.0.1:2526\"]", true),
    ] {
        for (old, new) in [(&started, &more(entry)), (&more(entry), &started)] {
            let Change { config, pending } = new.change(&old.config, SHARDS).unwrap();
            assert_eq!(pending, if waits { vec!["listener.s"] } else { vec![] }, "{entry}");
            assert_eq!(effects(&config) == effects(&old.config), waits, "{entry}");
        }
    }
}
