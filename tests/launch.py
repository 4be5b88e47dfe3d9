"""The console script in a process of its own, with what conftest.py mends; worker processes read this file again."""

import conftest  # noqa: F401

from holitom.cli import main

if __name__ == "__main__":
    main()
