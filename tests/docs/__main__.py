"""Write what of the guides is made from the code again: scripts/docs."""

from adapters.cli.schema import FILE
from tests.docs import schemas
from tests.docs.reference import GUIDES, renewed


def main() -> None:
    if schemas.write():
        print(f"written: {FILE.name}")
    for page in sorted(GUIDES.glob("*.md")):
        text = page.read_text(encoding="utf-8")
        if (new := renewed(text)) != text:
            page.write_text(new, encoding="utf-8")
            print(f"written: {page.name}")


if __name__ == "__main__":
    main()
