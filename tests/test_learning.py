"""Fifty steps learn."""

import torch

from ar import ARConfig, ARModel
from data.scenes import load_scenes
from orderer import Orderer, OrdererConfig, OrdererProcessor, normalise_tokens
