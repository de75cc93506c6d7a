"""Many small pictures as few blocks of text: each a JPEG whose header, the same for all, is written once.

A sheet of many pictures has to be decoded as a whole for one of them, and a list that is sorted needs one of each sheet
at a time; here the browser decodes just what it shows.
"""

import base64
import io
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from deepmerge.errors import InputError

QUALITY = 75  # of JPEG: 2.9 kB a noisy image of 75 × 75 pixels, 0.8 kB one without noise
PACK = 500  # pictures in a block
_SCAN, _COMMENT = b"\xff\xda", b"\xff\xfe"  # markers of JPEG: of the scan, behind the tables, and of a comment


@dataclass
class Packs:
    """Pictures (H, W, 3) uint8 of one size, in order, in base64: `header`, and each one's scan in a block of PACK.

    Header and scan, one behind the other, are an address of data. lengths: letters of each scan.
    """

    height: int = 0
    width: int = 0
    header: str = ""
    lengths: list[int] = field(default_factory=list)
    _scans: list[str] = field(default_factory=list)

    def add(self, pictures: np.ndarray) -> None:
        """Add pictures (n, H, W, 3) uint8, flipped so that row 0 is at the bottom, as in plots of images.

        Raises InputError for another shape or type than that of the first ones.
        """
        if pictures.ndim != 4 or pictures.shape[-1] != 3 or pictures.dtype != np.uint8:
            raise InputError(f"pictures should be (n, H, W, 3) uint8, got {pictures.shape} {pictures.dtype}")
        if not len(pictures):
            return
        self.height, self.width = (self.height, self.width) if self.lengths else pictures.shape[1:3]
        if pictures.shape[1:3] != (self.height, self.width):
            raise InputError(f"pictures should all have {self.height} × {self.width} pixels, got {pictures.shape[1:3]}")
        with ThreadPoolExecutor(2) as pool:  # the encoder is C and lets others run
            for header, scan in pool.map(_encoded, pictures[:, ::-1]):
                self.header = self.header or header
                if header != self.header:  # never seen: its tables depend on size and quality alone
                    raise RuntimeError("two JPEG headers differ, of pictures of one size and quality")
                self._scans.append(scan)
                self.lengths.append(len(scan))

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def blocks(self) -> Iterable[str]:
        """The scans of PACK pictures each, one after another."""
        for start in range(0, len(self._scans), PACK):
            yield "".join(self._scans[start : start + PACK])


def _encoded(picture: np.ndarray) -> tuple[str, str]:
    """Header and scan of a JPEG in base64. Colours at full resolution, as they tell the filters."""
    held = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(held, "JPEG", quality=QUALITY, subsampling=0)
    content = held.getvalue()
    start = content.index(_SCAN)
    end = start + 2 + int.from_bytes(content[start + 2 : start + 4], "big")
    header = content[:start]
    # A comment fills it up to whole groups of three bytes, so that base64 goes on behind it without a gap.
    filling = b"\0" * (-(end + 4) % 3)
    header += _COMMENT + (2 + len(filling)).to_bytes(2, "big") + filling + content[start:end]
    return base64.b64encode(header).decode("ascii"), base64.b64encode(content[end:]).decode("ascii")
