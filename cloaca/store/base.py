"""The one protocol behind library mode, the daemon and the cluster: where resources and archives live.

Every implementation has the semantics of the Kubernetes API and passes the suite in ``tests/conformance``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Protocol, TypeVar

from cloaca.authoring.value import Value
from cloaca.resources.ref import Ref

if TYPE_CHECKING:
    from typing import Any

    from cloaca.resources.meta import Resource
    from cloaca.resources.run import WorkflowRun
    from cloaca.store.oddities import Oddities

R = TypeVar("R", bound="Resource[Any, Any]")


class Change(Value):
    """Something happened to an object; look at it to learn what. Several changes may arrive as one."""

    ref: Ref
    deleted: bool = False


class Store(Protocol):
    """Resources under (kind, namespace, name).

    Writes are atomic and durable when the call returns. Objects that come out are frozen; what goes in is not kept.
    Every method may raise StoreUnavailable, and Invalid where an object breaks its schema: one that is written, or one
    that another version of this program stored; that one is Unreadable, and lists leave it out. Fields that a newer
    version added are kept when an object is written.
    """

    oddities: Oddities
    """The objects that this version cannot read: lists leave them out, ``get`` raises Unreadable."""

    async def get(self, kind: type[R], name: str, namespace: str = ...) -> R | None:
        """The object as it stands, or None."""
        ...

    async def list(
        self, kind: type[R], namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> tuple[R, ...]:
        """Every object of the kind that carries all of ``labels``, by namespace and name; None: all namespaces."""
        ...

    async def each(
        self, kind: type[R], namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> Iterator[R]:
        """As ``list``, as all stood when this returns, each made when its turn comes: for where there may be thousands,
        of which a list takes many times the room that they take as they are stored."""
        ...

    async def unfinished_runs(self) -> tuple[WorkflowRun, ...]:
        """Every run that has not ended, by namespace and name; cheaper than a list where many have."""
        ...

    async def create(self, obj: R) -> R:
        """Add it, status included, with uid, generation 1, creation time and resourceVersion filled in.

        Raises AlreadyExists where the name is taken, NotFound where an owner that it names is gone, Invalid where
        name, namespace, labels or annotations are not as Kubernetes wants them.
        """
        ...

    async def update(self, obj: R) -> R:
        """Write spec, labels, annotations and owners; status stays. Generation moves if the spec differs.

        What is the same already is not written: nothing moves, nobody hears of it. Returns the object as it is stored.

        Raises Conflict where ``metadata.resourceVersion`` is not the current one (empty: unconditional), NotFound
        where the object is gone or is another one by now (other uid).
        """
        ...

    async def write_status(self, obj: R) -> R:
        """Write status; everything else stays, also in what is returned. Otherwise as ``update``."""
        ...

    async def delete(self, ref: Ref, uid: str | None = None) -> bool:
        """Remove it and everything it owns, however deep. False: it was gone already (or has another uid)."""
        ...

    def changes(self) -> AbstractAsyncContextManager[AsyncIterator[Change]]:
        """Every change after the moment the block is entered, by this process or another; never ends by itself.

        Entering first and listing then misses nothing. A follower that falls thousands of deletions behind is shown
        every object once more, but may never hear of the oldest of those deletions: list now and then.
        """
        ...

    async def close(self) -> None:
        """Let go of everything; a call that is under way ends first. Idempotent."""
        ...


class ArchiveStore(Store, Protocol):
    """A store that keeps archives, too: one of a laptop. On a cluster they are in ConfigMaps of their package."""

    async def put_archive(self, data: bytes) -> str:
        """Keep ``data``; returns its digest, ``sha256:…``. Idempotent."""
        ...

    async def get_archive(self, digest: str) -> bytes | None:
        """The bytes, or None. Whoever is about to use them checks the digest again."""
        ...

    async def list_archives(self) -> tuple[str, ...]:
        """The digests that are kept, sorted."""
        ...

    async def delete_archive(self, digest: str) -> bool:
        """Drop the bytes. False: there were none."""
        ...
