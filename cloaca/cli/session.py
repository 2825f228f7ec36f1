"""What every command gets: the home it works on, its store, and how it was called. Holds options, decides nothing."""

from __future__ import annotations

import functools
import inspect
import os
import typing
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from cloaca.errors import CloacaError, StoreUnavailable
from cloaca.home import VARIABLE, Home

if TYPE_CHECKING:
    from cloaca.store import Store

T = TypeVar("T")

HomeOption = Annotated[
    Path | None,
    typer.Option(help=f"The daemon's home, instead of ${VARIABLE} or ~/.cloacina.", show_default=False),
]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
NamespaceOption = Annotated[str, typer.Option("--namespace", "-n", help="Where to look.")]


@dataclass
class Session:
    """One call of the command line. The options may stand before the command or after it."""

    given_home: Path | None = None
    debug: bool = False

    @property
    def home(self) -> Home:
        """The home that was given, else that of the environment."""
        return Home.find(self.given_home, os.environ)

    def hear(self, home: Path | None, debug: bool) -> None:
        """Take the options that stand at one place."""
        self.given_home = home or self.given_home
        self.debug = debug or self.debug

    def with_store(self, work: Callable[[Store], Awaitable[T]], *, make: bool = False) -> T:
        """What ``work`` returns, given the store of the home. ``make``: a home that is not there is made."""
        import asyncio  # here, so that the help need not wait for it

        return asyncio.run(self._with_store(work, make=make))

    async def _with_store(self, work: Callable[[Store], Awaitable[T]], *, make: bool) -> T:
        from cloaca.store import open_store

        home = self.home
        if not home.database.exists() and not make:
            raise StoreUnavailable(
                f"nothing was ever deployed in the home {home.root}: start `cloaca daemon` or apply something, "
                f"or name another home with --home or ${VARIABLE}"
            )
        try:
            home.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise StoreUnavailable(
                f"the home {home.root} cannot be made: {error.strerror or error}; name another one with --home"
            ) from error
        store = await open_store(str(home.database))
        try:
            return await work(store)
        finally:
            await store.close()


def commands() -> typer.Typer:
    """An application for the commands of one module: help as plain text, errors left to ``main``."""
    return typer.Typer(rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False)


def command(app: typer.Typer, name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function, whose first argument is the Session, as the command ``name``, with the common options."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(ctx: typer.Context, home: Path | None, debug: bool, **given: Any) -> Any:
            session = ctx.find_object(Session)
            if session is None:
                raise CloacaError("cloaca was called in an odd way: start it with cloaca.cli.main.main()")
            session.hear(home, debug)
            return function(session, **given)

        hints = typing.get_type_hints(function, include_extras=True)
        own = list(inspect.signature(function).parameters.values())[1:]
        keyword = inspect.Parameter.KEYWORD_ONLY
        parameters = [
            inspect.Parameter("ctx", keyword, annotation=typer.Context),
            *(parameter.replace(kind=keyword, annotation=hints[parameter.name]) for parameter in own),
            inspect.Parameter("home", keyword, default=None, annotation=HomeOption),
            inspect.Parameter("debug", keyword, default=False, annotation=DebugOption),
        ]
        call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # typer reads both of these
        call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return app.command(name, short_help=_first_line(function))(call)

    return register


def _first_line(function: Callable[..., Any]) -> str:
    return (function.__doc__ or "").strip().splitlines()[0]
