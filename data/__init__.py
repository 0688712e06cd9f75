"""Pairs of images and captions, safely decoded, in batches whose order nothing disturbs."""

from .batches import Batch, Batches, TokenBatch, TokenBatches
from .build import pairs_from_folder
from .captions import DamagedCaption, choose_caption, parse_captions
from .check import Counts, Defect, find_defects
from .coco import pairs_from_coco
from .images import DamagedImage, ImageFormat, decode_image, encode_image, fit_image
from .order import epoch_order, global_indices
from .sample import Damaged, Pair, Pairs, in_words, pairs_from
from .shard_writer import write_shards
from .shards import load_shards, read_shards
from .source import open_pairs
from .tables import pairs_from_table
from .tokens import TokenStore, write_tokens

__all__ = [
    "Batch",
    "Batches",
    "Counts",
    "Damaged",
    "DamagedCaption",
    "DamagedImage",
    "Defect",
    "ImageFormat",
    "Pair",
    "Pairs",
    "TokenBatch",
    "TokenBatches",
    "TokenStore",
    "choose_caption",
    "decode_image",
    "encode_image",
    "epoch_order",
    "find_defects",
    "fit_image",
    "global_indices",
    "in_words",
    "load_shards",
    "open_pairs",
    "pairs_from",
    "pairs_from_coco",
    "pairs_from_folder",
    "pairs_from_table",
    "parse_captions",
    "read_shards",
    "write_shards",
    "write_tokens",
]
