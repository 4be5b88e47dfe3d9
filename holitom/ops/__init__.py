"""Pure tensor algorithms that the methods are composed of."""

from holitom.ops.density import DensityPeaks, density_scores, join_nearest, pairwise_distances
from holitom.ops.ranking import keep_top, last_query_attention, query_attention, rank_descending, top_indexes
from holitom.ops.segmentation import Segmentation, segment
from holitom.ops.similarity import neighbour_cosine, static_links
from holitom.ops.streaming import SegmentStream, Window, segment_stream

__all__ = [
    "DensityPeaks",
    "SegmentStream",
    "Segmentation",
    "Window",
    "density_scores",
    "join_nearest",
    "keep_top",
    "last_query_attention",
    "neighbour_cosine",
    "pairwise_distances",
    "query_attention",
    "rank_descending",
    "segment",
    "segment_stream",
    "static_links",
    "top_indexes",
]
