"""Object masks as COCO's compressed run lengths (RLE): what files, the cache, ranks and scores hand on.

A mask becomes pixels only where it is used, for one image at a time. hotcoco encodes and decodes bit for bit as
pycocotools does, many times faster.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from hotcoco import mask as rle
from numpy.typing import NDArray

from megdet.data.size import Size


@dataclass(frozen=True, eq=False)
class Masks:
    """m masks, each as large as its image."""

    codes: NDArray[np.uint8]
    """The compressed run lengths of all masks, one after the other."""
    ends: NDArray[np.int64]
    """[m], rising: where each mask's ends in `codes`."""

    @classmethod
    def of(cls, codes: Iterable[bytes]) -> Masks:
        """From the `counts` of COCO's RLE, a mask each."""
        codes = list(codes)
        lengths = np.array([len(code) for code in codes], dtype=np.int64)
        return cls(np.frombuffer(b"".join(codes), dtype=np.uint8), np.cumsum(lengths))

    @classmethod
    def drawn(cls, pixels: NDArray[np.uint8]) -> Masks:
        """From 0 and 1, uint8 [m, h, w]."""
        encoded: Any = rle.encode(np.asfortranarray(pixels.transpose(1, 2, 0)))
        return cls.of(one["counts"] for one in encoded)

    def __len__(self) -> int:
        return len(self.ends)

    def code(self, place: int) -> bytes:
        """`counts` of one mask."""
        start = self.ends[place - 1] if place else 0
        return self.codes[start : self.ends[place]].tobytes()

    def rle(self, place: int, size: Size) -> dict[str, Any]:
        """COCO's RLE of one mask of an image of that size, `counts` as bytes."""
        return {"size": list(size), "counts": self.code(place)}

    def chosen(self, places: NDArray[np.int64] | NDArray[np.bool_]) -> Masks:
        """These masks, in this order."""
        places = np.flatnonzero(places) if places.dtype == np.bool_ else places
        return Masks.of(map(self.code, places.tolist()))

    def pixels(self, size: Size) -> NDArray[np.uint8]:
        """Of masks of one image: 0 and 1, uint8 [m, h, w]."""
        if not len(self):
            return np.zeros((0, *size), dtype=np.uint8)
        decoded: NDArray[np.uint8] = rle.decode([self.rle(place, size) for place in range(len(self))])
        return np.ascontiguousarray(decoded.transpose(2, 0, 1))
