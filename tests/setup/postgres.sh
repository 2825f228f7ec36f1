#!/bin/sh
# Give the tests a PostgreSQL server to start, where the system can install one. Never fails: without one the tests that
# need it are skipped, and say how to get it.
if command -v initdb >/dev/null 2>&1 || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1; then
    exit 0
fi
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    export DEBIAN_FRONTEND=noninteractive
    (apt-get update -qq && apt-get install -y -qq --no-install-recommends postgresql) >/dev/null 2>&1 && exit 0
fi
echo "no PostgreSQL server here, and none could be installed: its tests will be skipped" >&2
