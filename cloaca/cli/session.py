"""What every command gets: the place it works on, its store, and how it was called. Holds options, decides nothing."""

from __future__ import annotations

import functools
import inspect
import os
import typing
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from cloaca.cli.place import Cluster, Laptop, Place, Wanted, choose
from cloaca.errors import CloacaError
from cloaca.home import STORE_VARIABLE, VARIABLE

if TYPE_CHECKING:
    from cloaca.store import Store
    from cloaca.store.kubernetes.store import KubernetesStore

T = TypeVar("T")

HomeOption = Annotated[
    Path | None,
    typer.Option(help=f"The daemon's home, instead of ${VARIABLE} or ~/.cloacina.", show_default=False),
]
StoreOption = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help=f"The store of the home, instead of ${STORE_VARIABLE}, its settings or the file in it.",
        show_default=False,
    ),
]
ContextOption = Annotated[
    str | None,
    typer.Option(
        "--kube-context",
        metavar="NAME",
        help="Work on the cluster of this context of the kubeconfig.",
        show_default=False,
    ),
]
KubeconfigOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Work on the cluster that this file names.", show_default=False),
]
KubernetesOption = Annotated[
    bool, typer.Option("--kubernetes", help="Work on the cluster of the kubeconfig's current context.")
]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
NamespaceOption = Annotated[
    str,
    typer.Option("--namespace", "-n", help="Where to look.", show_default="default; on a cluster the context's"),
]
ScopeOption = Annotated[
    str | None,
    typer.Option("--namespace", "-n", help="Where to look.", show_default="all; on a cluster the context's"),
]

CLUSTER_OPTIONS: dict[str, tuple[Any, Any]] = {
    "kube_context": (None, ContextOption),
    "kubeconfig": (None, KubeconfigOption),
    "kubernetes": (False, KubernetesOption),
}


@dataclass
class Session:
    """One call of the command line. The options may stand before the command or after it."""

    wanted: Wanted = field(default_factory=Wanted)
    debug: bool = False
    namespace: str | None = None  # None: every one

    @property
    def place(self) -> Place:
        """What is worked on. Raises CloacaError where the options contradict each other."""
        return choose(self.wanted, os.environ)

    def hear(self, wanted: Wanted, debug: bool) -> None:
        """Take the options that stand at one place."""
        self.wanted = wanted.over(self.wanted)
        self.debug = debug or self.debug

    def look_in(self, namespace: str) -> str:
        """The namespace to look into: the given one, or the usual one of the place."""
        self.namespace = namespace or self.place.namespace
        return self.namespace

    def look_around(self, namespace: str | None) -> str | None:
        """The namespace to look into, of a command that looks at a whole home: None, at all of them."""
        place = self.place
        self.namespace = namespace or (None if isinstance(place, Laptop) else place.namespace)
        return self.namespace

    def with_store(self, work: Callable[[Store], Awaitable[T]], *, make: bool = False) -> T:
        """What ``work`` returns, given the store of the place. ``make``: a home that is not there is made."""
        import asyncio  # here, so that the help need not wait for it

        return asyncio.run(self._with_store(work, make=make))

    async def _with_store(self, work: Callable[[Store], Awaitable[T]], *, make: bool) -> T:
        place = self.place
        store = await (place.open(make=make) if isinstance(place, Laptop) else place.open(self.namespace))
        try:
            return await work(store)
        finally:
            await store.close()

    def with_cluster(self, cluster: Cluster, work: Callable[[KubernetesStore], Awaitable[T]]) -> T:
        """What ``work`` returns, given the store of ``cluster``, for what other stores do not have."""
        import asyncio

        async def opened() -> T:
            store = await cluster.open(self.namespace)
            try:
                return await work(store)
            finally:
                await store.close()

        return asyncio.run(opened())


def commands() -> typer.Typer:
    """An application for the commands of one module: help as plain text, errors left to ``main``."""
    return typer.Typer(rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False)


def command(
    app: typer.Typer, name: str, *, anywhere: bool = True
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function, whose first argument is the Session, as the command ``name``, with the common options.

    ``anywhere``: it works on a cluster too. Its ``namespace`` is the usual one of the place where none was given.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(ctx: typer.Context, home: Path | None, store: str | None, debug: bool, **given: Any) -> Any:
            session = ctx.find_object(Session)
            if session is None:
                raise CloacaError("cloaca was called in an odd way: start it with cloaca.cli.main.main()")
            cluster = {option: given.pop(option) for option in CLUSTER_OPTIONS if anywhere}
            session.hear(Wanted(home=home, store=store, **cluster), debug)
            if not anywhere and session.wanted.names_cluster:
                raise CloacaError(f"`cloaca {name}` works on this machine: leave out what names a cluster")
            if given.get("namespace") is not None:
                given["namespace"] = session.look_in(given["namespace"])
            try:
                return function(session, **given)
            except BrokenPipeError as error:  # typer would take it for standard output's, and end without a word
                raise CloacaError(f"`cloaca {name}`: the other end closed a connection: try again") from error

        hints = typing.get_type_hints(function, include_extras=True)
        own = list(inspect.signature(function).parameters.values())[1:]
        keyword = inspect.Parameter.KEYWORD_ONLY
        parameters = [
            inspect.Parameter("ctx", keyword, annotation=typer.Context),
            *(parameter.replace(kind=keyword, annotation=hints[parameter.name]) for parameter in own),
            *(
                inspect.Parameter(option, keyword, default=default, annotation=annotation)
                for option, (default, annotation) in CLUSTER_OPTIONS.items()
                if anywhere
            ),
            inspect.Parameter("home", keyword, default=None, annotation=HomeOption),
            inspect.Parameter("store", keyword, default=None, annotation=StoreOption),
            inspect.Parameter("debug", keyword, default=False, annotation=DebugOption),
        ]
        call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # typer reads both of these
        call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return app.command(name, short_help=_first_line(function))(call)

    return register


def _first_line(function: Callable[..., Any]) -> str:
    """What the list of commands says; nothing where ``python -OO`` has removed the docstrings."""
    return next(iter((function.__doc__ or "").strip().splitlines()), "")
