"""The console script in a process of its own that can load torchvision; worker processes read this file again."""

import signal

import torchvision_loads  # noqa: F401

from holitom.cli import main

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in the background of a shell begin without it
    main()
