"""The methods, one file each, and how to get them by name."""

from holitom.methods.base import Method
from holitom.methods.baselines import AveragePool, RandomDrop, RandomInner, RepeatFrames, Uncompressed, UniformFrames
from holitom.methods.cdpruner import CDPruner
from holitom.methods.cells import CellMean, CellSample
from holitom.methods.chain import Chain
from holitom.methods.content import ContentBudget
from holitom.methods.divprune import DivPrune
from holitom.methods.dycoke import DyCoke
from holitom.methods.earlytom import EarlyTom
from holitom.methods.echoprune import EchoPrune
from holitom.methods.evs import EVS
from holitom.methods.exact import ExactMethod
from holitom.methods.fastv import FastV
from holitom.methods.fastvid import FastVID
from holitom.methods.flashvid import FlashVID
from holitom.methods.forestprune import ForestPrune
from holitom.methods.framefusion import FrameFusion
from holitom.methods.holitom import HoliTom
from holitom.methods.prunevid import PruneVid
from holitom.methods.pyramiddrop import PyramidDrop
from holitom.methods.registry import BUILTIN, build, method_class, names, parse, spell, with_tower
from holitom.methods.renewal import Renewal
from holitom.methods.segmenting import Segmenting
from holitom.methods.sinks import SinkAware
from holitom.methods.spread import Spread
from holitom.methods.sttm import STTM
from holitom.methods.tome import ToMe
from holitom.methods.unifiedst import UnifiedST
from holitom.methods.vcast import VCast
from holitom.methods.vidcom2 import VidCom2
from holitom.methods.visionzip import VisionZip

__all__ = [
    "BUILTIN", "EVS", "STTM", "AveragePool", "CDPruner", "CellMean", "CellSample", "Chain", "ContentBudget", "DivPrune",
    "DyCoke", "EarlyTom", "EchoPrune", "ExactMethod", "FastV", "FastVID", "FlashVID", "ForestPrune", "FrameFusion",
    "HoliTom", "Method", "PruneVid", "PyramidDrop", "RandomDrop", "RandomInner", "Renewal", "RepeatFrames",
    "Segmenting", "SinkAware", "Spread", "ToMe", "Uncompressed", "UnifiedST", "UniformFrames", "VCast", "VidCom2",
    "VisionZip", "build", "method_class", "names", "parse", "spell", "with_tower",
]  # fmt: skip
