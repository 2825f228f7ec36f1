"""Keep what the API server has of one resource in memory, as a watch shows it. Writes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from cloaca.store.kubernetes.api import Api
from cloaca.store.kubernetes.feed import Key, Reflector, key_of
from cloaca.store.oddities import Oddities
from cloacina_operator.executors.parts import together

Object = dict[str, Any]


class Watched:
    """The objects of some collections of one resource. Belongs to one event loop."""

    def __init__(
        self,
        api: Api,
        paths: Sequence[str],
        selector: Mapping[str, str],
        changed: Callable[[Object | None, Object | None], None],
        kind: str = "",
        oddities: Oddities | None = None,
    ) -> None:
        """``changed`` is called with what was and what is, after the fact; None: nothing. ``kind``, ``oddities``: see
        Reflector."""
        self._changed = changed
        self._objects: dict[Key, Object] = {}
        self._reflectors = [
            Reflector(api, path, self._told, selector=selector, kind=kind, oddities=oddities) for path in paths
        ]

    def get(self, namespace: str, name: str) -> Object | None:
        """As last seen; whoever needs more asks the server."""
        return self._objects.get((namespace, name))

    def __iter__(self) -> Iterator[Object]:
        return iter(list(self._objects.values()))

    @property
    def heard_at(self) -> float:
        """When the server last told of anything, by the monotonic clock; of several watches the most silent one."""
        return min(reflector.heard_at for reflector in self._reflectors)

    async def listed(self) -> None:
        """Return when everything was seen once."""
        for reflector in self._reflectors:
            await reflector.loaded.wait()

    async def run(self) -> None:
        """Follow until cancelled."""
        await together(reflector.run() for reflector in self._reflectors)

    def saw(self, obj: Object) -> None:
        """The answer to a write of our own, which the watch tells of later."""
        key = key_of(obj)
        before = self._objects.get(key)
        if before is not None and uid_of(before) == uid_of(obj) and version_of(before) >= version_of(obj):
            return
        self._objects[key] = slim(obj)
        self._changed(before, obj)

    def _told(self, key: Key, obj: Object, gone: bool) -> None:
        if not gone:
            self.saw(obj)
            return
        before = self._objects.get(key)
        if before is None or obj["metadata"].get("uid", uid_of(before)) != uid_of(before):
            return  # another one of that name is there by now
        del self._objects[key]
        self._changed(before, None)


_OF_STATUS = ("phase", "reason", "message", "conditions", "initContainerStatuses", "containerStatuses")
_OF_CONTAINER_STATUS = ("name", "image", "state", "lastState", "restartCount")
_OF_CONTAINER = ("name", "resources")


def slim(obj: Object) -> Object:
    """``obj`` without what nobody reads of it and takes the most room: there may be thousands."""
    obj["metadata"].pop("managedFields", None)
    spec = obj.get("spec", {})
    if "template" in spec:  # of Deployments and Jobs, which we made: their annotations say after what
        del obj["spec"]
    elif "containers" in spec:  # of pods
        obj["spec"] = {
            group: [_only(_OF_CONTAINER, container) for container in spec[group]]
            for group in ("initContainers", "containers")
            if group in spec
        }
        status = obj["status"] = _only(_OF_STATUS, obj.get("status", {}))
        for name in ("initContainerStatuses", "containerStatuses"):
            if status.get(name):
                status[name] = [_only(_OF_CONTAINER_STATUS, container) for container in status[name]]
    return obj


def _only(names: Sequence[str], of: Object) -> Object:
    return {name: of[name] for name in names if name in of}


def uid_of(obj: Object) -> str:
    """Which object of that name it is."""
    return str(obj["metadata"]["uid"])


def version_of(obj: Object) -> int:
    """Opaque by contract, and comparable since Kubernetes 1.35 says so, as every API server on etcd always did."""
    return int(obj["metadata"]["resourceVersion"])


def owner_uid(obj: Object) -> str | None:
    """The uid of its controller; None: it has none."""
    owner = controller_of(obj)
    return None if owner is None else str(owner["uid"])


def controller_of(obj: Object) -> Object | None:
    """The reference to its controller; None: it has none."""
    return next((owner for owner in obj["metadata"].get("ownerReferences", ()) if owner.get("controller")), None)
