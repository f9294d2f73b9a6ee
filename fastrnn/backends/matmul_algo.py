"""How products of float32 are computed on the CPU: as they are, or as sums of bfloat16."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from fastrnn import _core


class SplitBf16(NamedTuple):
    """Floats multiplied as sums of bfloat16: by what, in how many terms, from what sizes on."""

    unit: str
    terms: int
    rows: int  # of a product; steps of ragged rows that have fewer multiply floats as they are
    TB: int  # rows of all steps
    H: int
    area: int  # rows*H
    beside: bool | None = None  # where there is a tile unit too, or where there is none

    @property
    def dots(self) -> bool:
        """Whether dot products of vectors take them, which every such processor has."""
        return self.unit == "dot products"

    def __str__(self) -> str:
        return f"{self.unit}, terms={self.terms} of bfloat16 a float"

    def usable(self, units: set[str]) -> bool:
        """Return whether a processor with such units is to multiply so."""
        return self.unit in units and self.beside in (None, "tile unit" in units)

    def reached(self, rows: int, TB: int, H: int) -> bool:
        """Return whether a product of so many rows is worth it in such a call."""
        return TB >= self.TB and rows >= self.rows and H >= self.H and rows * H >= self.area

    def least(self) -> str:
        """Return the least sizes."""
        return f"rows={self.rows}, T*B={self.TB}, H={self.H}, rows*H={self.area}"


# The first that the processor has and whose sizes a product reaches; else fused multiply-adds,
# which then are faster (docs/adr: 0007-floats-in-parts-on-the-tile-unit,
# 0015-bfloat16-dot-products).
SPLIT_BF16 = {
    "highest": [SplitBf16("tile unit", terms=3, rows=12, TB=256, H=128, area=2048)],
    "high": [SplitBf16("tile unit", terms=2, rows=4, TB=64, H=64, area=1024)],
    "medium": [
        SplitBf16("tile unit", terms=1, rows=2, TB=32, H=64, area=256),
        SplitBf16("dot products", terms=1, rows=1, TB=1, H=1, area=1, beside=False),
        SplitBf16("dot products", terms=1, rows=1, TB=1, H=128, area=128, beside=True),
    ],
}


class MatmulAlgorithms(NamedTuple):
    """Of the recurrent products, over the rows of a step, and of those batched over many steps.

    None: floats are multiplied as they are.
    """

    recurrent: SplitBf16 | None
    batched: SplitBf16 | None

    def __str__(self) -> str:
        if self.recurrent == self.batched:
            return str(self.recurrent)
        recurrent = self.recurrent or "fused multiply-adds"
        return f"{recurrent}; of all steps' rows at once: {self.batched}"

    def codes(self) -> tuple[_core.Algorithm, _core.Algorithm]:
        """Return what the extension calls them."""
        return code(self.recurrent), code(self.batched)


def code(split: SplitBf16 | None) -> _core.Algorithm:
    """Return what the extension calls an algorithm."""
    return (split.terms, split.dots, split.rows) if split else (0, False, 0)
