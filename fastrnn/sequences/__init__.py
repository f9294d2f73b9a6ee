"""Losses and decoders of whole sequences: CTC and linear-chain CRFs."""

from .crf import CRF, bio_transitions
from .ctc import ctc_decode, ctc_loss

__all__ = ["CRF", "bio_transitions", "ctc_decode", "ctc_loss"]
