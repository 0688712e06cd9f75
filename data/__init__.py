"""Pairs of images and captions, safely decoded, in batches whose order nothing disturbs."""

from .bare_image import DamagedImage
from .batches import Batch, Batches, Draw, TokenBatch, TokenBatches
from .candidates import Candidates, Rule
from .captions import DamagedCaption, choose_caption, parse_captions
from .check import Counts, Defect, find_defects
from .coco import pairs_from_coco
from .curate import Curated, Step, curate
from .curated import write_view
from .folder import pairs_from_folder
from .framing import Framing
from .hf import Columns, HFPairs, pairs_from_hf
from .images import Fit, ImageFormat, decode_image, encode_image, fit_image
from .joined import apart
from .kept import Kept, fits
from .looks import Looks, Scorer, look_at
from .order import epoch_order, global_indices
from .sample import Damaged, Pair, Pairs, PairSource, StoredPair, decoded, in_words, pairs_from
from .shard_writer import Encoding, write_shards
from .shards import open_shards
from .similar import Alike, alike_among, alike_in
from .source import check_skipped, in_memory, is_drawn, is_of_scenes, open_source, read_all
from .stream import Stream
from .tables import pairs_from_table
from .tars import pairs_from_tars
from .templates import every_phrase
from .tokens import TokenStore, write_tokens
from .urls import ShardUrls, is_url, shard_urls

__all__ = [
    "Alike",
    "Batch",
    "Batches",
    "Candidates",
    "Columns",
    "Counts",
    "Curated",
    "Damaged",
    "DamagedCaption",
    "DamagedImage",
    "Defect",
    "Draw",
    "Encoding",
    "Fit",
    "Framing",
    "HFPairs",
    "ImageFormat",
    "Kept",
    "Looks",
    "Pair",
    "PairSource",
    "Pairs",
    "Rule",
    "Scorer",
    "ShardUrls",
    "Step",
    "StoredPair",
    "Stream",
    "TokenBatch",
    "TokenBatches",
    "TokenStore",
    "alike_among",
    "alike_in",
    "apart",
    "check_skipped",
    "choose_caption",
    "curate",
    "decode_image",
    "decoded",
    "encode_image",
    "epoch_order",
    "every_phrase",
    "find_defects",
    "fit_image",
    "fits",
    "global_indices",
    "in_memory",
    "in_words",
    "is_drawn",
    "is_of_scenes",
    "is_url",
    "look_at",
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
    "shard_urls",
    "write_shards",
    "write_tokens",
    "write_view",
]
