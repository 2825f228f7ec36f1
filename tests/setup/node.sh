#!/bin/sh
# Give the tests what a real node needs of this machine, where the system can install it. Never fails: without it the tests
# on a real node are skipped, and say what is missing.
missing=''
has() { PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null 2>&1 || missing="$missing $2"; }
has containerd containerd
has runc runc
has nft nftables
has ip iproute2
has debootstrap debootstrap
has openssl openssl
has nsenter util-linux
[ -x /usr/lib/cni/bridge ] || [ -x /opt/cni/bin/bridge ] || missing="$missing containernetworking-plugins"
if [ -z "$missing" ]; then exit 0; fi
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086 # one word for each package
    (apt-get update -qq && apt-get install -y -qq --no-install-recommends $missing) >/dev/null 2>&1 && exit 0
    echo "a real node needs$missing, which apt-get could not install: its tests will be skipped" >&2
    exit 0
fi
echo "a real node needs$missing, and only root on Debian or Ubuntu can install it here: its tests will be skipped" >&2
