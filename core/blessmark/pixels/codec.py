"""Compressed frames to samples and back, one frame at a time.

Samples here are arrays [rows, cols, channels] in the pixel word of the header. Each family of transfer
syntaxes has one fixed decoder: what else is installed must not change what a pixel is.
"""

from __future__ import annotations

import io
from typing import Any

import jpeg_ls
import numpy as np
import numpy.typing as npt
import openjpeg.utils
import rle.utils
from PIL.JpegImagePlugin import JpegImageFile
from pydicom import uid
from pydicom.pixels.processing import convert_color_space

from blessmark.errors import PixelError
from blessmark.pixels import codestream, jpeg_lossless, run_length
from blessmark.pixels.codestream import Codestream
from blessmark.pixels.header import Header
from blessmark.pixels.syntax import J2K, JPEG_LOSSLESS, JPEG_LOSSY, JPEG_LS

Samples = npt.NDArray[Any]

#: codes of pylibjpeg-openjpeg
_J2K_UNSPECIFIED, _J2K_RGB = 0, 1
#: codes of JPEG-LS (ITU-T T.87 C.2.3)
_BY_PLANE, _BY_PIXEL = 0, 2


class EncoderRefusedError(PixelError):
    """The encoder does not take this frame; another one may."""


def decode(encoded: bytes, header: Header) -> Samples:
    """Samples of one compressed frame: the stored ones of a lossless source, RGB of a lossy colour one.

    Raises
    ------
    PixelError : the frame contradicts the header, or its decoder gave up
    """
    declared = codestream.checked(encoded, header)
    try:
        samples, photometric = _decoded(encoded, declared, header)
        if samples.size != header.frame_samples:
            raise ValueError("size")
        words = _as_words(samples, declared.precision, header)
        if header.lossy and photometric.startswith("YBR_FULL"):
            words = convert_color_space(words, "YBR_FULL", "RGB")
    except Exception as error:
        raise PixelError(f"a compressed frame cannot be decoded ({type(error).__name__})") from error
    return words


def _decoded(encoded: bytes, declared: Codestream, header: Header) -> tuple[Samples, str]:
    """Samples [rows, cols, channels] as the decoder gives them, and their photometric interpretation."""
    if header.syntax in JPEG_LOSSY:
        return _from_jpeg(encoded, header)
    if header.syntax in JPEG_LOSSLESS:
        return jpeg_lossless.decode(encoded, declared), header.photometric
    if header.syntax in JPEG_LS:
        return _from_jpeg_ls(encoded, header), header.photometric
    if header.syntax in J2K:
        samples = openjpeg.utils.decode(encoded).reshape(header.rows, header.cols, header.channels)
        return samples, "RGB" if header.photometric in ("YBR_RCT", "YBR_ICT") else header.photometric
    return _from_rle(encoded, header), header.photometric


def _as_words(samples: Samples, precision: int, header: Header) -> Samples:
    """Pixel words out of `precision`-bit samples, whose sign the codestream may not know or may deny."""
    words = samples.astype(header.word)
    shift = 8 * words.dtype.itemsize - precision
    if header.signed:
        return (words << shift) >> shift if shift else words
    return words if samples.dtype.kind == "u" else words & ((1 << precision) - 1)


def _from_jpeg(encoded: bytes, header: Header) -> tuple[Samples, str]:
    """Decode lossy JPEG. The codestream's word about its colour counts, the header's where it has none.

    Adobe and JFIF markers and the letters R, G, B as component names are such words; without any of them
    libjpeg would take three components for YCbCr, which is wrong exactly if the header says RGB.
    """
    image = JpegImageFile(io.BytesIO(encoded))
    said = "adobe_transform" in image.info or "jfif" in image.info or image.layer[0][0] == ord("R")
    if header.photometric == "RGB" and not said:
        image.draft("YCbCr", image.size)  # asks for the components as they are
    samples = np.asarray(image).reshape(header.rows, header.cols, header.channels)
    return samples, "RGB" if header.channels == 3 else header.photometric


def _from_jpeg_ls(encoded: bytes, header: Header) -> Samples:
    content, described = jpeg_ls.decode_buffer(encoded)
    flat = np.frombuffer(content, "u1" if described["bits_per_sample"] <= 8 else "<u2")
    by_plane = described["interleave_mode"] == _BY_PLANE
    return _reshaped(flat, header, by_plane)


def _from_rle(encoded: bytes, header: Header) -> Samples:
    planes = run_length.decode(encoded, header.rows, header.cols)
    width = header.bits_allocated // 8
    significant_last = planes.reshape(header.channels, width, header.rows, header.cols)[:, ::-1]
    return np.ascontiguousarray(np.moveaxis(significant_last, (0, 1), (2, 3))).view(header.word)[..., 0]


def _reshaped(flat: Samples, header: Header, by_plane: bool) -> Samples:
    if by_plane:
        return np.moveaxis(flat.reshape(header.channels, header.rows, header.cols), 0, 2)
    return flat.reshape(header.rows, header.cols, header.channels)


def encode(samples: Samples, header: Header) -> bytes:
    """One frame in the lossless syntax `header.syntax`, decoded again and found equal.

    Raises
    ------
    EncoderRefusedError : the encoder gave up
    PixelError : what it wrote is not what it was given
    """
    name = uid.UID(header.syntax).name
    try:
        encoded = _encoded(np.ascontiguousarray(samples), header)
    except Exception as error:
        raise EncoderRefusedError(f"a frame cannot be encoded as {name} ({type(error).__name__})") from error
    if not np.array_equal(decode(encoded, header), samples):
        raise PixelError(f"a frame encoded as {name} does not decode to itself; nothing was changed")
    return encoded


def _encoded(samples: Samples, header: Header) -> bytes:
    if header.syntax == uid.JPEGLSLossless:
        return _to_jpeg_ls(samples, header)
    if header.syntax == uid.JPEG2000Lossless:
        return _to_jpeg_2000(samples, header)
    return _to_rle(samples, header)


def _to_jpeg_ls(samples: Samples, header: Header) -> bytes:
    """JPEG-LS knows no sign: its samples are the lowest `bits_stored` bits."""
    unsigned = samples.view(f"<u{samples.dtype.itemsize}") & ((1 << header.bits_stored) - 1)
    by_plane = header.channels == 1 or header.planar == 1
    ordered = np.moveaxis(unsigned, 2, 0) if by_plane else unsigned
    content = ordered.astype("u1" if header.bits_stored <= 8 else "<u2").tobytes()
    return bytes(
        jpeg_ls.encode_buffer(
            content,
            header.rows,
            header.cols,
            header.channels,
            header.bits_stored,
            interleave_mode=_BY_PLANE if by_plane else _BY_PIXEL,
        )
    )


def _to_jpeg_2000(samples: Samples, header: Header) -> bytes:
    narrow = samples.astype(f"<{samples.dtype.kind}{1 if header.bits_stored <= 8 else 2}")
    transformed = header.photometric == "YBR_RCT"
    return bytes(
        openjpeg.utils.encode(
            np.ascontiguousarray(narrow if header.channels == 3 else narrow[:, :, 0]),
            bits_stored=header.bits_stored,
            photometric_interpretation=_J2K_RGB if transformed else _J2K_UNSPECIFIED,
            use_mct=transformed,
        )
    )


def _to_rle(samples: Samples, header: Header) -> bytes:
    return bytes(
        rle.utils.encode_pixel_data(
            samples.tobytes(),
            byteorder="<",
            rows=header.rows,
            columns=header.cols,
            samples_per_pixel=header.channels,
            bits_allocated=header.bits_allocated,
        )
    )
