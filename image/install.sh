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

# Compiled once, checked by content and not by time: start-up is paid for by every run, and the root is read-only.
finish() {
  "$prefix/bin/python" -m compileall -q -j 0 --invalidation-mode unchecked-hash "$prefix/lib" || true
  find "$prefix" \( -name 'tests' -o -name 'direct_url.json' -o -name 'uv_cache.json' \) -path '*-packages/*' -prune -exec rm -rf {} +
}

if [ ! -x "$prefix/bin/python" ]; then
  uv venv --quiet --no-project --python "$(command -v /usr/local/bin/python3 || command -v /usr/bin/python3)" "$prefix"
  uv pip install --quiet $offline $from --only-binary :all: --python "$prefix/bin/python" --require-hashes -r "$source/image/requirements.lock"
  finish
fi
if [ "$only" = dependencies ]; then rm -rf "$work"; exit 0; fi
cp -R "$source" "$work/source"
uv build --quiet --wheel --offline --no-build-isolation --python "$work/tools/bin/python" --out-dir "$work/wheel" "$work/source"
uv pip install --quiet --offline --no-index --no-deps --python "$prefix/bin/python" "$work"/wheel/*.whl

finish
rm -rf "$work"
"$prefix/bin/python" -c 'import cloaca, cloacina_operator'
