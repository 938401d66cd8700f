"""Build specs of one document, as models."""

from pathlib import Path

from adapters.spec import Broken, Given, Spec, read_specs


def load_spec(path: Path) -> Spec:
    """The one version that a file describes; raises what is wrong with it."""
    (found,) = read_specs([path], Given())
    if isinstance(found, Broken):
        raise found.error
    assert isinstance(found.document, Spec)
    return found.document
