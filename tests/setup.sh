#!/usr/bin/env bash
# The Debian packages that the end-to-end tests talk to. Does nothing when they are there.
set -euo pipefail

# Program and the package it is in.
needed=(
    "cc gcc" "g++ g++"
    "openssl openssl" "swaks swaks" "postfix postfix" "smtp-source postfix" "unbound unbound"
    "curl curl" "python3 python3"
)

export PATH="$PATH:/usr/sbin:/sbin"
packages=()
for entry in "${needed[@]}"; do
    read -r program package <<<"$entry"
    command -v "$program" >/dev/null || packages+=("$package")
done
# swaks works without it, but not with TLS, and only recommends it.
perl -MNet::SSLeay -e 1 2>/dev/null || packages+=(libnet-ssleay-perl)
[ ${#packages[@]} -gt 0 ] || exit 0
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
