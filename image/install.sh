#!/bin/sh
# install.sh SOURCE PREFIX [dependencies]: install what the image needs at run time into a virtual environment at PREFIX.
# With `dependencies` all but our own code, which changes most often; what is there already is kept.
# Run in the base image, by the Dockerfile and by image/build.sh alike. With $WHEELS set, from that folder and no index.
set -eu
source=$1 prefix=$2 only=${3:-} work=$(mktemp -d)
export SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-0}" UV_NO_CACHE=1 UV_NO_CONFIG=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
from='' offline=''
if [ -n "${WHEELS:-}" ]; then from="--no-index --find-links $WHEELS" offline=--offline; fi

# Tools that only build: pinned, and gone with $work. Word splitting of $from is meant.
python3 -m venv "$work/tools"
"$work/tools/bin/pip" install --quiet $from --only-binary :all: --require-hashes -r "$source/image/build.lock"
export PATH="$work/tools/bin:$PATH"

# Compiled once, with the standard library, into a folder of its own ($PYTHONPYCACHEPREFIX of the image), and never
# checked again: start-up is paid for by every run, the root is read-only, official images of Python ship nothing that is
# compiled, and an image's files have lost the times by which Python tells whether what is compiled is still good.
compiled() {
  PYTHONDONTWRITEBYTECODE=1 PYTHONPYCACHEPREFIX="$prefix/pycache" "$prefix/bin/python" -m compileall \
    -q -f -j 0 --invalidation-mode unchecked-hash -x '/(test|tests|idlelib|lib2to3|tkinter|turtledemo|ensurepip)/' "$@" || true
}
finish() {
  find "$prefix" \( -name 'tests' -o -name 'direct_url.json' -o -name 'uv_cache.json' \) -path '*-packages/*' -prune -exec rm -rf {} +
  # What tells when and from where it was installed goes from the lists of files too, so that two images are the same.
  find "$prefix" -name RECORD -path '*.dist-info/*' -exec sed -i '/\.dist-info\/\(direct_url\|uv_cache\)\.json,/d' {} +
  rm -f "$prefix/.lock" "$prefix/.gitignore" "$prefix/CACHEDIR.TAG"
}

if [ ! -x "$prefix/bin/python" ]; then
  uv venv --quiet --no-project --python "$(command -v /usr/local/bin/python3 || command -v /usr/bin/python3)" "$prefix"
  uv pip install --quiet $offline $from --only-binary :all: --python "$prefix/bin/python" --require-hashes -r "$source/image/requirements.lock"
  finish
  compiled "$("$prefix/bin/python" -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')" "$prefix/lib"
fi
if [ "$only" = dependencies ]; then rm -rf "$work"; exit 0; fi
cp -R "$source" "$work/source"
uv build --quiet --wheel --offline --no-build-isolation --python "$work/tools/bin/python" --out-dir "$work/wheel" "$work/source"
uv pip install --quiet --offline --no-index --no-deps --python "$prefix/bin/python" "$work"/wheel/*.whl

finish
compiled "$prefix"/lib/python*/site-packages/cloaca "$prefix"/lib/python*/site-packages/cloacina_operator
rm -rf "$work"
PYTHONDONTWRITEBYTECODE=1 "$prefix/bin/python" -c 'import cloaca, cloacina_operator'
