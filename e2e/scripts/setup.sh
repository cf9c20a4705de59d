#!/usr/bin/env bash
# Sets up what `make demo`, `make lab` and `make test` need and this machine does not have. Says what and why; silent
# when there is nothing to do.
. "$(dirname "$0")/common.sh"

# program, Debian/Ubuntu package, why
needs='
cc        gcc             the C compiler that ring is built with and that cargo links with
ip        iproute2        network namespaces, bridges, veth pairs: the nodes of the lab
nft       nftables        the rules of kube-proxy, and packet loss in tests
arping    arping          the client asks who answers for an IPv4 address
ping      iputils-ping    reachability: what `make lab` tells people to try, and a way to make a kernel ask for a neighbour
ndisc6    ndisc6          the client asks who answers for an IPv6 address
tcpdump   tcpdump         the capture that a failed test shows
curl      curl            the requests of the demo
c++       g++             libFuzzer, which the fuzz targets are linked with
qemu-system-x86_64 qemu-system-x86 a kernel with bonding, VLANs, VRFs and IPVS for tests, where this one has none
cpio      cpio            the root file system of the guest with that kernel
strip     binutils        what goes into it, without symbols
/usr/lib/frr/bgpd frr     a router to peer with in tests: FRR, with BFD
bird      bird2           a router to peer with in tests: BIRD
gobgpd    gobgpd          a router to peer with in tests: GoBGP
exabgp    exabgp          a router to peer with in tests: ExaBGP
git       git             the check of the workspace asks it which files are ours
'

# There are two programs called arping; the demo reads what the one of Thomas Habets prints.
has() {
  command -v "$1" >/dev/null || return 1
  [ "$1" != arping ] || { arping -h 2>&1 || true; } | grep -q Habets
}

# The routers come with services that Debian starts and enables; here they run in namespaces only. What was on this machine
# before is left alone: it is not installed again.
keep_services_off() {
  local policy=/usr/sbin/policy-rc.d service
  if [ "$1" = before ]; then
    [ -e $policy ] || { printf '#!/bin/sh\nexit 101\n' >$policy && chmod +x $policy && policy_is_ours=1; }
    return 0
  fi
  [ -z "${policy_is_ours:-}" ] || rm -f $policy
  for service in frr bird gobgpd exabgp; do
    case " $2 " in
    *" ${service/#bird/bird2} "*) systemctl disable $service.service >/dev/null 2>&1 || true ;; # no systemd: no services
    esac
  done
}

install_packages() {
  local missing=() program package why
  while read -r program package why; do
    [ -n "$program" ] || continue
    has "$program" && continue
    say "setup: $program is missing (package $package): $why"
    missing+=("$package")
  done <<<"$needs"
  [ ${#missing[@]} -gt 0 ] || return 0
  command -v apt-get >/dev/null || die "setup: install these and try again: ${missing[*]}"
  [ "$(id -u)" = 0 ] || die "setup: as root: apt-get install ${missing[*]}"
  say "setup: apt-get install ${missing[*]}"
  local log
  log=$(mktemp)
  keep_services_off before
  trap "keep_services_off after '${missing[*]}'" EXIT
  { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"; } \
    >"$log" 2>&1 </dev/null || die "$(tail -n 30 "$log")"
  trap - EXIT
  keep_services_off after "${missing[*]}"
  rm -f "$log"
}

# go 1.26 or newer: what go.mod of the lab's tools says. An older one would try to download a newer toolchain.
check_go() {
  command -v go >/dev/null || die "setup: go is missing; the lab's Kubernetes is built with Go 1.26 or newer (https://go.dev/doc/install)"
  local version
  version=$(GOTOOLCHAIN=local go env GOVERSION)
  [ "$(printf '%s\n' go1.26 "$version" | sort -V | head -n 1)" = go1.26 ] ||
    die "setup: $version is too old; the lab's Kubernetes is built with Go 1.26 or newer (https://go.dev/doc/install)"
}

install_packages
command -v cargo >/dev/null || die "setup: cargo is missing; Patina is built with Rust 1.95 (https://www.rust-lang.org/tools/install)"
check_go
