"""Settings of the daemon: what a person may write, and what is refused with the name of the file."""

from __future__ import annotations

from pathlib import Path

import pytest
from cloacina_operator.settings import SettingsError, read_settings

from cloaca.home import Home


@pytest.mark.parametrize(
    ("line", "setting", "value"),
    [
        pytest.param("jitter = 0", "jitter", 0.0, id="no jitter"),
        pytest.param("jitter = 0.25", "jitter", 0.25, id="a quarter"),
        pytest.param("worker_memory = 1048576", "worker_memory", 1 << 20, id="one MiB"),
    ],
)
def test_a_setting_is_read(tmp_path: Path, line: str, setting: str, value: object) -> None:
    home = Home(tmp_path)
    home.config.write_text(line + "\n")
    assert getattr(read_settings(home, {}), setting) == value


@pytest.mark.parametrize(
    ("line", "words"),
    [
        pytest.param("jitter = 1.5", "jitter: is 1.5, but must be a number from 0 to 1", id="jitter too large"),
        pytest.param("jitter = -0.1", "jitter: is -0.1, but must be a number from 0 to 1", id="jitter negative"),
        pytest.param("jitter = true", "jitter: is True, but must be a number from 0 to 1", id="jitter bool"),
        pytest.param("metrics_port = 70000", "metrics_port: is 70000, but must be at most 65535", id="no port"),
        pytest.param("worker_memory = 0", "worker_memory: is 0, but must be an integer of at least 1", id="no memory"),
    ],
)
def test_a_wrong_value_is_refused(tmp_path: Path, line: str, words: str) -> None:
    home = Home(tmp_path)
    home.config.write_text(line + "\n")
    with pytest.raises(SettingsError) as refused:
        read_settings(home, {})
    assert str(refused.value) == f"{home.config}: {words}"
