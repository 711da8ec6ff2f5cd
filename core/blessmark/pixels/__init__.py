"""DICOM pixel data as integer planes, and back without losing a bit.

    read   bytes or a file      -> Dataset          complete, or PixelError
    load   Dataset              -> Image            its frames as integer planes
                                -> Passthrough      a kind of object that is never marked, and why
    store  Dataset, new frames  -> the Dataset      holding exactly these samples, read back before it returns
    write  Dataset              -> bytes            untouched elements as they were; `parts`: piece by piece
    settle, changes, undo       what was done to a Dataset, and the very bytes that it was
    digest                      SHA-256 of a Dataset as it would be written
    add, put, made              new elements of a Dataset, by keyword or by tag, and new items
    put_first                   the first of several words of a code string
    Fixed                       an item that many data sets get, written once for all of them
    has, tag_object             whether there is an element; pydicom's object for its tag, the same every time
    stated_syntax               the UID of the transfer syntax
    plain_value                 the value field of a decoded element that leaves no choice, soon written

    decompress                  Dataset -> the Dataset, its pixels uncompressed

Three rules hold for every image that `load` returns:

* A sample is the whole pixel word: unused high bits hold only zeros or copies of the sign, so writing
  `lo..hi` back reproduces every bit. Anything else is passed through.
* Uncompressed pixel data are patched in place: same length, order of bytes, planes and padding.
* Compressed pixel data are written losslessly, and decoded again before `store` lets go of them. Pixels
  decoded from a lossy source are the truth from then on.

This is the only part of the engine that knows DICOM.
"""

from blessmark.pixels.content import Content, Fixed, add, made, put, put_first
from blessmark.pixels.decompress import decompress
from blessmark.pixels.elements import has, stated_syntax, tag_object
from blessmark.pixels.files import parts, read, write
from blessmark.pixels.header import Header
from blessmark.pixels.image import Image, load
from blessmark.pixels.layout import digest, settle
from blessmark.pixels.plain import plain_value
from blessmark.pixels.reason import Passthrough, Reason
from blessmark.pixels.store import store
from blessmark.pixels.undo import Changes, changes, original, undo

__all__ = [
    "Changes",
    "Content",
    "Fixed",
    "Header",
    "Image",
    "Passthrough",
    "Reason",
    "add",
    "changes",
    "decompress",
    "digest",
    "has",
    "load",
    "made",
    "original",
    "parts",
    "plain_value",
    "put",
    "put_first",
    "read",
    "settle",
    "stated_syntax",
    "store",
    "tag_object",
    "undo",
    "write",
]
