"""Build specs: YAML files that say what versions are made from, as `galleria build` takes them, and
which galleries and definitions there are to be, as `galleria apply` makes them.

```yaml
apiVersion: galleria/v1
kind: ImageVersion
variables: {release: bookworm, replicas: 2}     # --var release=trixie
matrix: {role: [web, db]}                       # one build for each
image: {gallery: corp, definition: "${matrix.role}", version: next-patch}
source:
  osDisk: "./${var.release}-${matrix.role}.vhdx"   # relative to this file
targetRegions: [{name: eu, replicas: "${var.replicas}"}, {name: us}]
---
apiVersion: galleria/v1
kind: Gallery
name: corp
```

`spec.schema.json` is generated from the models, for editors and CI; a test fails on difference.
What `galleria publish` has as an option a spec has as a key; a test compares them.
"""

from adapters.spec.loading import (
    STDIN,
    Broken,
    Declared,
    SpecInvalid,
    read_specs,
    read_variables,
)
from adapters.spec.models import (
    SCHEMA_FILE,
    DataDisk,
    DefinitionSpec,
    GallerySpec,
    Generalize,
    SourceDisks,
    SourceMachine,
    Spec,
    SpecRegion,
    schema,
)
from adapters.spec.texts import NEXT_PATCH
from adapters.spec.variables import Given, given_texts

__all__ = [
    "NEXT_PATCH",
    "SCHEMA_FILE",
    "STDIN",
    "Broken",
    "DataDisk",
    "Declared",
    "DefinitionSpec",
    "GallerySpec",
    "Generalize",
    "Given",
    "SourceDisks",
    "SourceMachine",
    "Spec",
    "SpecInvalid",
    "SpecRegion",
    "given_texts",
    "read_specs",
    "read_variables",
    "schema",
]
