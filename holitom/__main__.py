"""``python -m holitom``: the command line, also where its script is not on the path."""

from holitom.cli import main

main()
