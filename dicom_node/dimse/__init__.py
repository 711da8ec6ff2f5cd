"""DICOM on the wire: the only package that imports pynetdicom.

`contexts` says what is accepted, `scp` receives, `store` sends, `patches` repairs the library.
"""

from __future__ import annotations

#: (0002,0012) of files this node writes and its side of every association; never changes, because it is part
#: of what a file's hash covers
IMPLEMENTATION_CLASS_UID = "2.25.240126894236928140165853019363374435223"
#: (0002,0013), without a version for the same reason
IMPLEMENTATION_VERSION_NAME = "DICOM_NODE"
