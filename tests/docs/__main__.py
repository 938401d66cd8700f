"""Write what of the guides is made from the code again: scripts/docs."""

import json

from adapters.cli.schema import FILE
from adapters.spec import models
from tests.docs import schemas
from tests.docs.reference import GUIDES, renewed


def main() -> None:
    if schemas.write():
        print(f"written: {FILE.name}")
    spec = json.dumps(models.schema(), indent=2) + "\n"
    if models.SCHEMA_FILE.read_text(encoding="utf-8") != spec:
        models.SCHEMA_FILE.write_text(spec, encoding="utf-8")
        print(f"written: {models.SCHEMA_FILE.name}")
    for page in sorted(GUIDES.glob("*.md")):
        text = page.read_text(encoding="utf-8")
        if (new := renewed(text)) != text:
            page.write_text(new, encoding="utf-8")
            print(f"written: {page.name}")


if __name__ == "__main__":
    main()
