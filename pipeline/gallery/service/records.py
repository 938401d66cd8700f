"""Steps that were done, and disks that were deployed."""

from collections.abc import Mapping
from typing import Any

from pipeline.gallery.model import Deployment
from pipeline.gallery.service.base import Operations


class Records(Operations):
    def step(self, key: str) -> Mapping[str, Any] | None:
        """What the step of that content-addressed key gave, if it was done."""
        with self._catalog.read() as catalog:
            return catalog.step(key)

    def record_step(self, key: str, output: Mapping[str, Any]) -> None:
        with self._catalog.write() as catalog:
            catalog.put_step(key, output)

    def record_deployment(self, deployment: Deployment) -> None:
        with self._catalog.write() as catalog:
            catalog.put_deployment(deployment)

    def list_deployments(self) -> list[Deployment]:
        with self._catalog.read() as catalog:
            return catalog.deployments()
