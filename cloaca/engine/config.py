"""DefaultRunnerConfig: the settings of library mode, under the names that its users' programs have."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from cloaca.errors import DefinitionError


@dataclass(kw_only=True)
class DefaultRunnerConfig:
    """Settings of a DefaultRunner; every one can be read and written, and is checked when it is set.

    >>> DefaultRunnerConfig(max_concurrent_tasks=8).max_concurrent_tasks
    8
    """

    max_concurrent_tasks: int = 4
    scheduler_poll_interval_ms: int = 100
    """Accepted for programs that set it; a DefaultRunner is woken up and polls nothing."""
    task_timeout_seconds: int = 300
    """Of one try of a task that states no limit of its own."""
    pipeline_timeout_seconds: int | None = 3600
    """Of a whole run; None: no limit."""
    db_pool_size: int = 10
    enable_recovery: bool = True
    enable_cron_scheduling: bool = True
    cron_poll_interval_seconds: int = 30
    cron_max_catchup_executions: int = 100
    cron_enable_recovery: bool = True
    cron_recovery_interval_seconds: int = 300
    cron_lost_threshold_minutes: int = 10
    cron_max_recovery_age_seconds: int = 86_400
    cron_max_recovery_attempts: int = 3

    def __setattr__(self, name: str, value: object) -> None:
        if name not in self.__dataclass_fields__:
            raise AttributeError(f"DefaultRunnerConfig has no setting {name!r}")
        if isinstance(self.__dataclass_fields__[name].default, bool):
            if not isinstance(value, bool):
                raise DefinitionError(f"DefaultRunnerConfig: {name} is {value!r}, but must be True or False")
        elif value is None and name == "pipeline_timeout_seconds":
            pass
        elif not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise DefinitionError(f"DefaultRunnerConfig: {name} is {value!r}, but must be an integer of at least 1")
        super().__setattr__(name, value)

    @staticmethod
    def default() -> DefaultRunnerConfig:
        """The defaults.

        >>> DefaultRunnerConfig.default() == DefaultRunnerConfig()
        True
        """
        return DefaultRunnerConfig()

    def to_dict(self) -> dict[str, Any]:
        """Name to value.

        >>> DefaultRunnerConfig().to_dict()["task_timeout_seconds"]
        300
        """
        return asdict(self)
