"""Give each call of user code context variables of its own, the decimal context among them."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contextvars import Context


def fresh(base: Context) -> Context:
    """A copy of ``base``, so that what a call sets there is seen by no other call.

    A copy holds the same values, and the decimal context is one that can be changed in place: it is copied too.
    """
    variables = base.copy()
    if "decimal" in sys.modules:
        variables.run(_copy_decimal_context)
    return variables


def _copy_decimal_context() -> None:
    import decimal

    decimal.setcontext(decimal.getcontext().copy())
