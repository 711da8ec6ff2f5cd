"""dicom-node: a DICOM store-and-forward node that hides the patient record inside the image.

Reading order, as an image travels: `dimse.scp` receives, `spool` and `ledger` keep, `worker` runs
`protect` (or `review` on the way back), `forwarder` sends by `dimse.store`. The watermark itself is
the package `blessmark`; this package holds everything that touches the outside world.
"""

__version__ = "0.1.0"
