#!/usr/bin/env bash
# The Debian packages that the end-to-end tests talk to. Does nothing when they are there.
set -euo pipefail

# Program and the package it is in.
needed=(
    "cc gcc" "g++ g++"
    "openssl openssl" "swaks swaks" "postfix postfix" "smtp-source postfix" "unbound unbound" "ldns-signzone ldnsutils"
    "curl curl" "python3 python3" "opendkim-testmsg opendkim-tools" "opendkim opendkim" "saslpasswd2 sasl2-bin"
    "knotd knot" "kdig knot-dnsutils" "named bind9" "dovecot dovecot-core" "haproxy haproxy" "dmarc-cat dmarc-cat"
    # Only to ask it about the units in deploy/: it does not become the init of this host.
    "systemd-analyze systemd"
)

export PATH="$PATH:/usr/sbin:/sbin"
packages=()
for entry in "${needed[@]}"; do
    read -r program package <<<"$entry"
    command -v "$program" >/dev/null || packages+=("$package")
done
# swaks works without it, but not with TLS, and only recommends it.
perl -MNet::SSLeay -e 1 2>/dev/null || packages+=(libnet-ssleay-perl)
[ -x /usr/lib/dovecot/lmtp ] || packages+=(dovecot-lmtpd)
# Of Debian's Python, whichever other one there is.
/usr/bin/python3 -c 'import dkim, nacl.signing, authres' 2>/dev/null || packages+=(python3-dkim python3-nacl python3-authres)
# Writes databases of autonomous systems.
perl -MMaxMind::DB::Writer::Tree -e 1 2>/dev/null || packages+=(libmaxmind-db-writer-perl)
# Other judges of SPF and DMARC. The package opendmarc would bring a database; what it judges by is in the library.
/usr/bin/python3 -c 'import spf' 2>/dev/null || packages+=(python3-spf)
/usr/bin/python3 -c 'import ctypes; ctypes.CDLL("libopendmarc.so.2")' 2>/dev/null || packages+=(libopendmarc2)
# A server with channel binding: OpenSSL's exporter, and GNU SASL.
/usr/bin/python3 -c 'import ctypes, OpenSSL; ctypes.CDLL("libgsasl.so.18")' 2>/dev/null || packages+=(python3-openssl libgsasl18)
# Exim cannot be installed beside Postfix: it is unpacked beside the build. What it links has to be there.
unpacked=${CARGO_TARGET_DIR:-$(dirname "$0")/../target}/tools
exim=$unpacked/exim/usr/sbin/exim4
if ! [ -x "$exim" ] || ldd "$exim" | grep -q 'not found'; then
    packages+=(libdb5.3 libgnutls-dane0 libidn12 libnsl2 libpcre2-8-0)
fi
getent passwd Debian-exim >/dev/null || packages+=(passwd)
# Another reader of reports, which Debian does not have: in an environment of its own, each package of it with its version.
parsedmarc=$unpacked/parsedmarc
read_reports() { [ -x "$parsedmarc/bin/python" ] && "$parsedmarc/bin/python" -c 'import parsedmarc' 2>/dev/null; }
read_reports || /usr/bin/python3 -c 'import ensurepip' 2>/dev/null || packages+=(python3-venv)
make_parsedmarc() {
    read_reports && return
    echo "installing parsedmarc"
    rm -rf "$parsedmarc"
    /usr/bin/python3 -m venv "$parsedmarc"
    "$parsedmarc/bin/pip" install -q --disable-pip-version-check -r "$(dirname "$0")/peers/parsedmarc.txt" 2>&1 |
        grep -v DEPRECATION || true
    read_reports
}
[ ${#packages[@]} -gt 0 ] || { make_parsedmarc; exit; }
mapfile -t packages < <(printf '%s\n' "${packages[@]}" | sort -u)

if ! command -v apt-get >/dev/null; then
    echo "These are missing, and there is no apt-get to install them with: ${packages[*]}" >&2
    exit 1
fi
as_root=()
if [ "$(id -u)" -ne 0 ]; then
    if sudo -n true 2>/dev/null; then
        as_root=(sudo -n)
    else
        echo "The tests need packages that only root can install. Run:" >&2
        echo "    sudo apt-get install --no-install-recommends ${packages[*]}" >&2
        exit 1
    fi
fi

echo "installing ${packages[*]}"
# The packages start their servers after they are installed. The tests start their own, on their own ports.
policy=/usr/sbin/policy-rc.d
made_policy=
if ! [ -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
    "${as_root[@]}" chmod 755 "$policy"
    made_policy=yes
fi
cleanup() { [ -z "$made_policy" ] || "${as_root[@]}" rm -f "$policy"; }
trap cleanup EXIT

install() {
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
}
install || { "${as_root[@]}" apt-get update -qq && install; }

if ! [ -x "$exim" ]; then
    echo "unpacking exim4-daemon-light"
    mkdir -p "$unpacked"
    unpacked=$(cd "$unpacked" && pwd)
    work=$(mktemp -d)
    fetch() { (cd "$work" && apt-get download -qq -o APT::Sandbox::User=root exim4-daemon-light); }
    fetch || { "${as_root[@]}" apt-get update -qq && fetch; }
    rm -rf "$unpacked/exim"
    dpkg-deb -x "$work"/exim4-daemon-light_*.deb "$unpacked/exim"
    rm -rf "$work"
fi
# It is built for a user of that name, and does not start without.
getent passwd Debian-exim >/dev/null ||
    "${as_root[@]}" useradd --badname -r -M -d /nonexistent -s /usr/sbin/nologin -U Debian-exim
make_parsedmarc
