"""Logging is loaded when there is something to say, and configured before anybody can say it."""

from __future__ import annotations

import subprocess
import sys

START = """
import sys
from cloaca.engine.log import Log, once_loaded

def configure():
    import logging
    told.append(len(logging.getLogger().handlers))
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")

told = []
finders = list(sys.meta_path)
once_loaded(configure)
import json, heapq
assert (told, "logging" in sys.modules) == ([], False)
"""


def said(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", START + code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_what_is_imported_later_is_configured_once_and_is_the_module_that_it_always_is() -> None:
    code = """
import logging.handlers
assert told == [0]
assert sys.meta_path == finders
assert "def basicConfig" in logging.__spec__.loader.get_source("logging")
once_loaded(configure)
assert told == [0, 1]
logging.warning("of a task")
"""
    assert said(code) == "WARNING root: of a task\n"


def test_what_the_engine_says_is_configured_too() -> None:
    code = """
log = Log("cloaca.engine")
log.warning("%s of %d", "first", 2)
try:
    raise KeyError("gone")
except KeyError:
    log.exception("internal error")
"""
    first, second, *rest = said(code).splitlines()
    assert (first, second) == ("WARNING cloaca.engine: first of 2", "ERROR cloaca.engine: internal error")
    assert rest[-1] == "KeyError: 'gone'"


def test_nothing_is_printed_where_nobody_configures_logging() -> None:
    code = """
sys.meta_path[:] = finders
Log("cloaca.engine").warning("unheard")
"""
    assert said(code) == ""


def test_threads_that_load_it_at_once_find_it_configured() -> None:
    code = """
import threading
found = []
def look():
    barrier.wait()
    import logging
    found.append(bool(logging.getLogger().handlers))
barrier = threading.Barrier(50)
threads = [threading.Thread(target=look) for _ in range(50)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert (found, told) == ([True] * 50, [0]), (found, told)
"""
    assert said(code) == ""
