"""Pairs of images and captions, safely decoded, in batches whose order nothing disturbs."""

from .bare_image import DamagedImage
from .batches import Batch, Batches, Draw, TokenBatch, TokenBatches
from .build import pairs_from_folder
from .captions import DamagedCaption, choose_caption, parse_captions
from .check import Counts, Defect, find_defects
from .coco import pairs_from_coco
from .hf import HFPairs, pairs_from_hf
from .images import Fit, ImageFormat, decode_image, encode_image, fit_image
from .order import epoch_order, global_indices
from .sample import Damaged, Pair, Pairs, PairSource, StoredPair, decoded, in_words, pairs_from
from .shard_writer import Encoding, write_shards
from .shards import open_shards
from .source import check_skipped, in_memory, open_source, read_all
from .tables import pairs_from_table
from .tars import pairs_from_tars
from .tokens import TokenStore, write_tokens
from .view import View

__all__ = [
    "Batch",
    "Batches",
    "Counts",
    "Damaged",
    "DamagedCaption",
    "DamagedImage",
    "Defect",
    "Draw",
    "Encoding",
    "Fit",
    "HFPairs",
    "ImageFormat",
    "Pair",
    "PairSource",
    "Pairs",
    "StoredPair",
    "TokenBatch",
    "TokenBatches",
    "TokenStore",
    "View",
    "check_skipped",
    "choose_caption",
    "decode_image",
    "decoded",
    "encode_image",
    "epoch_order",
    "find_defects",
    "fit_image",
    "global_indices",
    "in_memory",
    "in_words",
    "open_shards",
    "open_source",
    "pairs_from",
    "pairs_from_coco",
    "pairs_from_folder",
    "pairs_from_hf",
    "pairs_from_table",
    "pairs_from_tars",
    "parse_captions",
    "read_all",
    "write_shards",
    "write_tokens",
]
