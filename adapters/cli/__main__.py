"""`python -m adapters.cli` is `galleria`: how galleria starts itself in the background."""

from adapters.cli import main

main()
