"""Writes holitom/assets/methods.json, from which `holitom methods` lists the methods without loading torch.

python docs/method_catalogue.py
"""

from __future__ import annotations

import json

from holitom.cli.methods import CATALOGUE, catalogue


def main() -> None:
    """Rewrites the file; methods of other packages are no part of it."""
    rows = [row for row in catalogue() if row["origin"] == "holitom"]
    CATALOGUE.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
