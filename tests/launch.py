"""The console script in a process of its own that can load torchvision; worker processes read this file again."""

import torchvision_loads  # noqa: F401

from holitom.cli import main

if __name__ == "__main__":
    main()
