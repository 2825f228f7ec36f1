"""Variables that a deployment sets for its workflows: ``CLOACINA_VAR_<name>`` in the environment."""

from __future__ import annotations

import os

from cloaca.errors import VariableError

PREFIX = "CLOACINA_VAR_"


def var(name: str) -> str:
    """The value of ``CLOACINA_VAR_<name>``. Raises VariableError (a KeyError) that names the variable if unset.

    >>> var("NO_SUCH")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    cloaca.errors.VariableError: the variable 'NO_SUCH' is not set: set CLOACINA_VAR_NO_SUCH in the environment...
    """
    try:
        return os.environ[PREFIX + name]
    except KeyError:
        raise VariableError(
            f"the variable {name!r} is not set: set {PREFIX}{name} in the environment of the package"
        ) from None


def var_or(name: str, default: str) -> str:
    """The value of ``CLOACINA_VAR_<name>``, or ``default`` if unset.

    >>> var_or("NO_SUCH", "eu-central-1")
    'eu-central-1'
    """
    return os.environ.get(PREFIX + name, default)
