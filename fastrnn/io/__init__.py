"""Layers in files."""

from .layers import load, read_metadata, save

__all__ = ["load", "read_metadata", "save"]
