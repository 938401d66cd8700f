"""VMs and scale sets that were made from versions. They are of who made them, and shown to who may
read the version."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from pipeline.errors import Conflict, NotFound
from pipeline.gallery import rules
from pipeline.gallery.access.subjects import Made
from pipeline.gallery.service.base import Operations
from pipeline.model import Deployment, Making, ScaleSet
from pipeline.model.access import Action
from pipeline.model.names import DefinitionName, VersionName
from pipeline.ports.catalog import CatalogReader


class Records(Operations):
    def take_deployments(
        self, version: VersionName, places: Sequence[tuple[str, str]], request: str
    ) -> list[Deployment]:
        """VMs of these names and directories that an interrupted run of the same request has
        recorded: they are the caller's to finish. Empty when nobody has; raises Conflict when other
        VMs are there, and Busy while somebody else makes them."""
        with self._access.write(Action.VERSION_READ, version) as (catalog, changes):
            wanted = set(places)
            found = [i for i in catalog.deployments() if (i.name, i.directory) in wanted]
            for item in found:
                making, who = item.making, self._access.principal
                if making is None or (making.request, item.deployed_by) != (request, who):
                    raise _deployed(item)
                self._refuse_making(catalog, item)
                self._runs.take(catalog, changes, making.owner)
            taken = [replace(i, making=Making(request, self._runs.id)) for i in found]
            for item in taken:
                changes.own_deployment(item)
        return taken

    def record_deployments(
        self, version: VersionName, deployments: Sequence[Deployment], request: str = ""
    ) -> list[Deployment]:
        """VMs that the caller makes from a version: all of them, or none. Those that it has taken
        are recorded anew; names that other VMs have in the same directory are refused. With a
        `request` they are unfinished until `finish_deployments`."""
        making = Making(request, self._runs.id) if request else None
        who = self._access.principal
        made = [replace(item, deployed_by=who, making=making) for item in deployments]
        with self._access.write(Action.VERSION_READ, version) as (catalog, changes):
            known = {(item.name, item.directory): item for item in catalog.deployments()}
            for name in {item.scale_set for item in made if item.scale_set}:
                self._check_mine(catalog, name)
            for item in made:
                old = known.get((item.name, item.directory))
                if old is not None and (old.making is None or old.making != making):
                    raise _deployed(item)
                changes.put_deployment(item)
        return made

    def finish_deployments(
        self, version: VersionName, deployments: Sequence[Deployment]
    ) -> list[Deployment]:
        """The directories of VMs that the caller has taken or recorded are in place."""
        with self._access.write(Action.VERSION_READ, version) as (catalog, changes):
            known = {(item.name, item.directory): item for item in catalog.deployments()}
            for item in deployments:
                if known.get((item.name, item.directory)) != item:
                    raise Conflict(
                        f"The VM '{item.name}' in {item.directory} was given up while it was made.",
                        hint="give the same command again",
                    )
            finished = [replace(item, making=None) for item in deployments]
            for item in finished:
                changes.put_deployment(item)
        return finished

    def leave_deployments(self, version: VersionName, deployments: Sequence[Deployment]) -> None:
        """VMs that the caller has taken, and can't finish now."""
        with self._access.write(Action.VERSION_READ, version) as (_, changes):
            for item in deployments:
                if item.making is not None:
                    making = replace(item.making, owner=None)
                    changes.own_deployment(replace(item, making=making))

    def check_releasable(self, deployments: Sequence[Deployment]) -> None:
        """Refuse unless the caller may give up these VMs, and nobody makes them just now: to be
        asked before their disks go."""
        with self._access.read(Action.DISK_DELETE, *map(_vm, deployments)) as catalog:
            places = {(item.name, item.directory) for item in deployments}
            for item in catalog.deployments():
                if (item.name, item.directory) in places:
                    self._refuse_making(catalog, item)

    def forget_deployments(self, deployments: Sequence[Deployment]) -> None:
        """VMs that are gone."""
        vms = map(_vm, deployments)
        with self._access.write(Action.DISK_DELETE, *vms) as (_, changes):
            for item in deployments:
                changes.delete_deployment(item)

    def list_deployments(
        self, *, definition: DefinitionName | None = None, version_uid: str | None = None
    ) -> list[Deployment]:
        """Those that the caller made, or whose version it may read: all, those of a definition's
        versions, or those of a version, by its `uid`."""
        found = self._access.visible(
            Action.VERSION_READ, lambda catalog: catalog.deployments(), _vm
        )
        return [
            item
            for item in found
            if (definition is None or item.version.definition == definition)
            and (version_uid is None or item.version_uid == version_uid)
        ]

    def create_scale_set(self, scale_set: ScaleSet, count: int = 0) -> ScaleSet:
        """Make a scale set of a version that the caller may read. One that was made by the same
        request and has fewer than `count` VMs is what a killed run began: it is returned."""
        made = replace(scale_set, created_by=self._access.principal)
        with self._access.write(Action.VERSION_READ, scale_set.version) as (catalog, changes):
            for there in catalog.scale_sets():
                if there.name == made.name:
                    if _asked(there) == _asked(made) and _size(catalog, there) < count:
                        return there
                    raise Conflict(f"The scale set '{made.name}' exists already.")
            changes.put_scale_set(made)
        return made

    @contextmanager
    def scaling(self, scale_set: ScaleSet) -> Iterator[tuple[ScaleSet, list[Deployment]]]:
        """The scale set and its VMs as they are now, whoever may see them: for the length of a
        `with` nobody else brings VMs into it or out of it. Raises Busy while somebody does."""
        name = scale_set.name
        with self._access.write(Action.SCALE_SET_WRITE, _set(scale_set)) as (catalog, changes):
            found = _existing(catalog, name)
            held = self._runs.holder(catalog, found.owner)
            if held is not None:
                raise rules.in_use(
                    held,
                    f"The scale set '{name}' is being scaled by another process, {held.run.who}.",
                )
            self._runs.take(catalog, changes, found.owner)
            mine = replace(found, owner=self._runs.id)
            changes.own_scale_set(mine)
            members = [item for item in catalog.deployments() if item.scale_set == name]
        try:
            yield mine, members
        finally:
            with self._access.write(Action.SCALE_SET_WRITE, _set(mine)) as (catalog, changes):
                now = next((item for item in catalog.scale_sets() if item.name == name), None)
                if now is not None and now.owner == mine.owner:
                    changes.own_scale_set(replace(now, owner=None))

    def change_scale_set(
        self, scale_set: ScaleSet, change: Callable[[ScaleSet], ScaleSet]
    ) -> ScaleSet:
        """Change the one that is there, as it is now; the caller may read the version that its
        image means."""
        old = self.get_scale_set(scale_set.name)
        with self._access.write(Action.SCALE_SET_WRITE, _set(old)) as (catalog, changes):
            now = _existing(catalog, scale_set.name)
            changed = replace(change(now), created_by=now.created_by)
            if changed.version != now.version:
                self._access.require(Action.VERSION_READ, changed.version)
            changes.put_scale_set(changed)
        return changed

    def get_scale_set(self, name: str) -> ScaleSet:
        """One that the caller made, or whose version it may read."""
        found = self._access.one(
            Action.VERSION_READ,
            lambda catalog: next((i for i in catalog.scale_sets() if i.name == name), None),
            _set,
        )
        if found is None:
            raise _no_scale_set(name)
        return found

    def list_scale_sets(self) -> list[ScaleSet]:
        """Those that the caller made, or whose version it may read."""
        found = self._access.visible(
            Action.VERSION_READ, lambda catalog: catalog.scale_sets(), _set
        )
        return list(found)

    def check_scale_set_deletable(self, scale_set: ScaleSet) -> None:
        """Refuse unless the caller may delete it: to be asked before its VMs go."""
        self._access.require(Action.SCALE_SET_DELETE, _set(scale_set))

    def delete_scale_set(self, scale_set: ScaleSet) -> None:
        """Forget a scale set that has no VMs any more."""
        old = self.get_scale_set(scale_set.name)
        with self._access.write(Action.SCALE_SET_DELETE, _set(old)) as (catalog, changes):
            if any(item.scale_set == old.name for item in catalog.deployments()):
                raise Conflict(f"The scale set '{old.name}' has VMs.")
            changes.delete_scale_set(old)

    def _refuse_making(self, catalog: CatalogReader, item: Deployment) -> None:
        held = self._runs.holder(catalog, item.making.owner if item.making is not None else None)
        if held is not None:
            raise rules.in_use(
                held,
                f"The VM '{item.name}' in {item.directory} is being made by another process, "
                f"{held.run.who}.",
            )

    def _check_mine(self, catalog: CatalogReader, name: str) -> None:
        if _existing(catalog, name).owner != self._runs.id:
            raise Conflict(f"The scale set '{name}' was taken over by another process.")


def _existing(catalog: CatalogReader, name: str) -> ScaleSet:
    found = next((item for item in catalog.scale_sets() if item.name == name), None)
    if found is None:
        raise _no_scale_set(name)
    return found


def _asked(scale_set: ScaleSet) -> tuple[object, ...]:
    """What a request for it says, and whose it is."""
    return (
        *(scale_set.image, scale_set.region, scale_set.directory),
        *(scale_set.profile, scale_set.created_by),
    )


def _size(catalog: CatalogReader, scale_set: ScaleSet) -> int:
    """How many VMs it has in place."""
    placed = (item for item in catalog.deployments() if item.making is None)
    return sum(item.scale_set == scale_set.name for item in placed)


def _no_scale_set(name: str) -> NotFound:
    return NotFound(f"There is no scale set '{name}'.", hint="galleria scale-set list")


def _deployed(item: Deployment) -> Conflict:
    unfinished = item.making is not None
    return Conflict(
        f"The VM '{item.name}' in {item.directory} is deployed already."
        if not unfinished
        else f"The VM '{item.name}' in {item.directory} is one of an unfinished deployment.",
        hint="galleria deployed release gives it up"
        + ("; the command that began it goes on with it" if unfinished else ""),
    )


def _vm(item: Deployment) -> Made:
    return Made(item.name, item.deployed_by, item.version.arm_id)


def _set(item: ScaleSet) -> Made:
    return Made(item.name, item.created_by, item.version.arm_id)
