"""blessmark: exact, blind, region-of-interest watermarking of medical images.

The public surface, each in the module of its name so that importing one does not load the rest:

    embed.embed      hide a record in the pixels outside the region of interest
    verify.verify    judge a frame with nothing but the keys
    recover.recover  give the original back, bit for bit
    types            frames, records, verdicts, keys
    pixels           DICOM data sets as frames, and back
    selftest         whether this machine computes what it should

Arrays and bytes only: no socket, no database, no configuration file. The method follows BlessMark
(arXiv 1911.00382); docs/format/v1.md is its format.
"""
