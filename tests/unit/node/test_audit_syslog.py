"""Messages of syslog are as RFC 5424 and RFC 5425 have them."""

from __future__ import annotations

from dicom_node.audit.syslog import Label, document, framed, syslog

LABEL = Label(10, 5, "DICOM+RFC3881", "host.example", 42)


def test_a_message_has_the_header_of_rfc_5424() -> None:
    assert syslog(b"<a/>", LABEL, 1_790_000_000.25) == (
        b"<85>1 2026-09-21T14:13:20.250Z host.example dicom-node 42 DICOM+RFC3881 - \xef\xbb\xbf<a/>"
    )


def test_a_host_without_a_name_is_none() -> None:
    label = Label(0, 0, "IHE+RFC-3881", "", 1)
    assert syslog(b"", label, 0.0).startswith(b"<0>1 1970-01-01T00:00:00.000Z - dicom-node 1 IHE+RFC-3881 - ")


def test_the_document_comes_out_again() -> None:
    assert document(syslog("<a>ä</a>".encode(), LABEL, 0.0)) == "<a>ä</a>".encode()


def test_a_frame_counts_bytes() -> None:
    assert framed("ä".encode()) == b"2 \xc3\xa4"
