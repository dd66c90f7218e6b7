#!/bin/sh
# Brings the Debian packages that the integration tests run against, or says which tests will be skipped for want
# of them. Called by `make test`.
#
# Rule: no daemon that a package would start may take a port. A temporary /usr/sbin/policy-rc.d forbids every
# start while apt-get runs; it is made only if there is none, and removed on every way out of this script.
set -eu

policy=/usr/sbin/policy-rc.d
mark="made by Shoal's make test, process"
PATH=$PATH:/usr/sbin:/sbin

# package, the program it brings, the tests that need it
wanted() {
    cat <<'LIST'
redis-server redis-server every test on Redis 7
redis-sentinel redis-sentinel failover with Redis's own Sentinel
redis-tools redis-benchmark redis-cli and redis-benchmark through the proxy
nutcracker nutcracker comparison with Twemproxy
keepalived keepalived the virtual IP
iproute2 ip hosts as network namespaces
nftables nft cutting hosts off from each other
tini tini a proxy in a container
nodejs node clients of Node.js
npm npm clients of Node.js
golang-go go clients of Go
default-jdk-headless javac clients of Java
maven mvn clients of Java
LIST
}

absent() { # prints the lines of `wanted` whose program is not there
    wanted | while read -r package program tests; do
        command -v "$program" >/dev/null 2>&1 || echo "$package $program $tests"
    done
}

say_what_is_skipped() { # why
    absent | while read -r package program tests; do
        echo "make test: will skip what needs $program ($tests): $1" >&2
    done
}

remove_policy() {
    if grep -q "$mark $$\$" "$policy" 2>/dev/null; then rm -f "$policy"; fi
}

forbid_service_starts() {
    old=$(sed -n "s/^# $mark \([0-9]*\)\$/\1/p" "$policy" 2>/dev/null || true)
    if [ -n "$old" ] && ! kill -0 "$old" 2>/dev/null; then rm -f "$policy"; fi # left by a run that was killed
    trap remove_policy EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    draft=$(mktemp /usr/sbin/.shoal-policy.XXXXXX)
    printf '#!/bin/sh\n# %s %s\nexit 101\n' "$mark" "$$" >"$draft"
    chmod 755 "$draft"
    made=0
    ln "$draft" "$policy" 2>/dev/null && made=1 # fails if somebody's policy is there: never overwritten
    rm -f "$draft"
    if [ "$made" = 1 ]; then return 0; fi
    status=0
    "$policy" redis-server start >/dev/null 2>&1 || status=$?
    [ "$status" = 101 ] # an existing policy that forbids starts is as good as ours
}

missing=$(absent)
if [ -z "$missing" ]; then exit 0; fi
if [ ! -e /etc/debian_version ] || ! command -v apt-get >/dev/null 2>&1; then
    say_what_is_skipped "it is not installed, and this is not Debian or Ubuntu"
    exit 0
fi
packages=$(echo "$missing" | cut -d' ' -f1 | tr '\n' ' ')
if [ "$(id -u)" != 0 ]; then
    say_what_is_skipped "it is not installed (as root: apt-get install $packages)"
    exit 0
fi
echo "make test: installing for the integration tests, with service starts forbidden: $packages" >&2
if ! forbid_service_starts; then
    say_what_is_skipped "$policy exists and allows service starts, so nothing was installed"
    exit 0
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086 # a list of package names
apt-get install -y -qq --no-install-recommends $packages
