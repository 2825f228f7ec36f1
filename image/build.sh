#!/bin/bash
# build.sh [OUTPUT.tar [TAG]]: make the image without Docker and without a registry, from a Debian base (debootstrap) and
# wheels. OUTPUT is what `docker load`, `kind load image-archive` and `ctr -n k8s.io image import` take. Needs root.
#   SUITE=bookworm  the Debian release (Python 3.11); trixie: 3.13     WHEELS=DIR  take wheels from there, ask no index
#   MEASURE=1  say what a registry would keep of it
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd) top=$(cd "$here/.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/cloacina/image
suite=${SUITE:-bookworm} output=${1:-$cache/cloacina.tar}
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$top/pyproject.toml" | head -1)
tag=${2:-docker.io/library/cloacina:$version}
[ "$(id -u)" = 0 ] || { echo "build.sh: needs root, for debootstrap and chroot" >&2; exit 1; }
command -v debootstrap >/dev/null || { echo "build.sh: needs debootstrap: apt-get install debootstrap" >&2; exit 1; }
umask 022
mkdir -p "$cache"
exec 9>"$cache/.lock"; flock 9

base=$cache/base-$suite
if [ ! -d "$base" ]; then
  echo "build.sh: making a base of Debian $suite" >&2
  rm -rf "$base.unfinished"
  debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates "$suite" "$base.unfinished" >"$cache/debootstrap.log" 2>&1 ||
    { tail -3 "$cache/debootstrap.log" >&2; exit 1; }
  (cd "$base.unfinished" && rm -rf var/cache/apt/* var/lib/apt/lists/* var/log/* usr/share/doc/* usr/share/man/* usr/share/locale/* usr/share/info/* &&
    : >etc/apt/sources.list && : >etc/machine-id && rm -f etc/resolv.conf etc/hostname)
  mv "$base.unfinished" "$base"
fi

work=$(mktemp -d -p "$cache"); trap 'rm -rf "$work"' EXIT
wheels=${WHEELS:-}
if [ -z "$wheels" ]; then
  python=$(chroot "$base" /usr/bin/python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  wheels=$cache/wheels-$python-$(cat "$here"/*.lock | sha256sum | cut -c1-12)
  [ -d "$wheels" ] || for lock in build requirements; do
    "${PIP:-pip}" download --quiet --only-binary :all: --python-version "$python" --require-hashes --no-deps \
      -r "$here/$lock.lock" -d "$work/wheels"
  done
  [ -d "$wheels" ] || mv "$work/wheels" "$wheels"
fi
cp -a "$base" "$work/root"
mkdir -p "$work/root/source" "$work/root/wheels"
cp "$wheels"/*.whl "$work/root/wheels"
(cd "$top" && tar c --exclude=__pycache__ --exclude=image/wheels cloaca operator image pyproject.toml README.md LICENSE) | tar x -C "$work/root/source"
[ -c "$work/root/dev/null" ] || mknod -m 666 "$work/root/dev/null" c 1 3
[ -c "$work/root/dev/urandom" ] || mknod -m 666 "$work/root/dev/urandom" c 1 9
install() { env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root WHEELS=/wheels chroot "$work/root" /source/image/install.sh /source /opt/cloacina "$@"; }
dependencies=$cache/dependencies-$suite-$(cat "$here"/*.lock "$here/install.sh" | sha256sum | cut -c1-12)
if [ ! -d "$dependencies" ]; then
  install dependencies
  rm -rf "$cache"/dependencies-* && cp -a "$work/root/opt/cloacina" "$dependencies.unfinished" && mv "$dependencies.unfinished" "$dependencies"
else
  cp -a "$dependencies" "$work/root/opt/cloacina"
fi
install

python3 "$here/archive.py" ${MEASURE:+--measure} --dockerfile "$top/Dockerfile" --tag "$tag" --machine "$(uname -m)" \
  "$output" "$base=/" "$work/root/opt/cloacina=/opt/cloacina"
