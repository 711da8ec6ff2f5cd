"""blessmark: exact, blind, region-of-interest watermarking of medical images.

`embed` hides a record in the pixels outside the region of interest; `verify` judges a frame with nothing
but the keys; `recover` gives the original back bit for bit. Arrays and bytes only: no socket, no database,
no configuration file. The method follows BlessMark (arXiv 1911.00382); docs/format/v1.md is its format.
"""

from blessmark.embed import embed
from blessmark.errors import CapacityError, WatermarkError
from blessmark.extract import extract
from blessmark.recover import recover
from blessmark.types import About, Finding, Frame, KeyRing, Record, SiteKey, Verdict
from blessmark.verify import verify

__all__ = [
    "About",
    "CapacityError",
    "Finding",
    "Frame",
    "KeyRing",
    "Record",
    "SiteKey",
    "Verdict",
    "WatermarkError",
    "embed",
    "extract",
    "recover",
    "verify",
]
