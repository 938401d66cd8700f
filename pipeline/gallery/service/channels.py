"""Channels: names for versions, given by hand."""

from pipeline.gallery import rules
from pipeline.gallery.service.base import Operations
from pipeline.model import Channel
from pipeline.model.access import Action
from pipeline.model.names import DefinitionName, VersionName
from pipeline.model.spelling import check_channel


class Channels(Operations):
    def promote(self, name: VersionName, channel: str) -> Channel:
        """Let a channel mean a version that can be used; returns it."""
        with self._access.write(Action.VERSION_WRITE, name) as (catalog, changes):
            channel = check_channel(channel)
            version = rules.existing(catalog.version(name), name)
            rules.promotable(version)
            made = Channel(version.name.definition, channel, version.number, self._clock())
            changes.put_channel(made)
            return made

    def list_channels(self, definition: DefinitionName) -> list[Channel]:
        with self._access.read(Action.VERSION_READ, definition) as catalog:
            return catalog.channels(definition)

    def remove_channel(self, definition: DefinitionName, channel: str) -> None:
        """The version that it means stays."""
        with self._access.write(Action.VERSION_WRITE, definition) as (catalog, changes):
            channel = check_channel(channel)
            rules.existing(catalog.definition(definition), definition)
            channels = {item.name: item for item in catalog.channels(definition)}
            if channel not in channels:
                raise rules.no_channel(definition, channel, list(channels))
            changes.delete_channel(channels[channel])
