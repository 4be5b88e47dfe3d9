"""All kernels. Imports Triton."""

from holitom.kernels.attention import column_sums
from holitom.kernels.changes import cut_positions
from holitom.kernels.density import density_peaks
from holitom.kernels.picking import directions, pick_farthest
from holitom.kernels.rows import neighbour_cosine, sum_rows

__all__ = [
    "column_sums",
    "cut_positions",
    "density_peaks",
    "directions",
    "neighbour_cosine",
    "pick_farthest",
    "sum_rows",
]
