"""Figures of matplotlib, which the extra ``holitom[plot]`` installs."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any

from holitom.extras import require

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, of a size in inches, which a notebook shows also where pyplot has not been imported.

    Raises:
        ImportError: without matplotlib.
    """
    require("matplotlib", "a plot", "'holitom[plot]'")
    from matplotlib.figure import Figure

    class Shown(Figure):
        def _repr_png_(self) -> bytes:
            picture = BytesIO()
            self.savefig(picture, format="png")
            return picture.getvalue()

    return Shown(figsize=(width, height), layout="constrained")


def finish(figure: Figure, axes: Any, path: Any, x: str, y: str, dpi: int = 120) -> None:
    """Names the axes, adds grid and legend, and writes the file."""
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=dpi)
