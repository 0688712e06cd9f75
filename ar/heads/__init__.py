"""Heads: what a token's distribution looks like, given the trunk's state."""

from .flow import FlowHead

__all__ = ["FlowHead"]
