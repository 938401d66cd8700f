"""Build specs: a YAML file that says what a version is made from, as `galleria build` takes it.

```yaml
apiVersion: galleria/v1
kind: ImageVersion
image: {gallery: corp, definition: web, version: next-patch}
source:
  osDisk: ./web.vhdx                  # relative to this file; FILE@NAME picks a qcow2 snapshot
  dataDisks: [{lun: 0, path: ./web-data.vhd}]
generalize: {skip: [logs]}            # or false; left out: as the definition's OS state says
targetRegions: [{name: eu, replicas: 2}, {name: us}]
```

`spec.schema.json` is generated from the models, for editors and CI; a test fails on difference.
What `galleria publish` has as an option a spec has as a key; a test compares them.
"""

from adapters.spec.loading import SpecInvalid, load_spec
from adapters.spec.models import (
    SCHEMA_FILE,
    DataDisk,
    Generalize,
    SourceDisks,
    SourceMachine,
    Spec,
    SpecRegion,
    schema,
)
from adapters.spec.texts import NEXT_PATCH

__all__ = [
    "NEXT_PATCH",
    "SCHEMA_FILE",
    "DataDisk",
    "Generalize",
    "SourceDisks",
    "SourceMachine",
    "Spec",
    "SpecInvalid",
    "SpecRegion",
    "load_spec",
    "schema",
]
