#!/bin/sh
# Give the tests of the Dockerfile a Docker daemon to start, where none answers and the system can install one. Never
# fails: without one they are skipped, and say how to get it.
if docker info >/dev/null 2>&1 || PATH="$PATH:/usr/sbin:/sbin" command -v dockerd >/dev/null 2>&1; then
    exit 0
fi
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    # a daemon of the system is nobody's wish here: the tests start their own
    policy=/usr/sbin/policy-rc.d
    [ -e "$policy" ] && policy='' || { printf '#!/bin/sh\nexit 101\n' > "$policy" && chmod 755 "$policy"; }
    export DEBIAN_FRONTEND=noninteractive
    (apt-get update -qq && apt-get install -y -qq --no-install-recommends docker.io) >/dev/null 2>&1 && done=yes
    [ -z "$policy" ] || rm -f "$policy"
    [ -z "$done" ] || exit 0
fi
echo "no Docker daemon here, and none could be installed: the tests of the Dockerfile will be skipped" >&2
