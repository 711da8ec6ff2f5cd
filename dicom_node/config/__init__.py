"""The configuration: one YAML file, read once, checked whole, frozen, passed down.

`config/dicom-node.example.yaml` is the manual; `config/dicom-node.schema.json` is generated from here.

Rules that bind here:
1. A key is declared once, in the models of this package, with its default, its unit (in the name) and its
   range.
2. Every problem of a file is reported at once, with file, line and remedy; nothing is silently corrected.
3. Plain YAML guesses (`NO` is false, `0104` is 68, `12:30` is 750, the last duplicate key wins). Here a value
   that YAML would guess at is an error that says so.

A section stands in the module of the step that it configures; `whole` puts them together, `document` reads
YAML, `references` sees what no single section can.
"""

from __future__ import annotations

from dicom_node.config.auditing import Audit
from dicom_node.config.clustering import Blobs, Broker, Cluster, Database
from dicom_node.config.committing import Asking, Commitment, ReportPolicy, Requester
from dicom_node.config.kinds import CREDENTIAL, RECORD_FIELDS, Section, record_tag
from dicom_node.config.marking import Dct, Networks, SegmenterRule, Watermark, Workers
from dicom_node.config.querying import Query, QueryPeer
from dicom_node.config.reading import (
    json_schema,
    load,
    load_any,
    load_workstation,
    parse,
    parse_workstation,
)
from dicom_node.config.receiving import Keys, Node, Storage
from dicom_node.config.routing import Deidentify, Match, Route
from dicom_node.config.securing import Access, Caller, Tls
from dicom_node.config.sending import Destination, RetryPolicy
from dicom_node.config.watching import Http, Log
from dicom_node.config.whole import Config, Workstation
from dicom_node.config.words import (
    AuditPatient,
    AuditTransport,
    BatcherKind,
    BlobKind,
    CalledAE,
    CarrierName,
    ClusterPart,
    Dates,
    Descriptors,
    Device,
    Engine,
    Finding,
    Label,
    LogFormat,
    LogLevel,
    OnContent,
    OnError,
    OnFinding,
    OnUnprotectable,
    Plain,
    Profile,
    Promise,
    Retain,
    Retrieve,
    RetrieveLevel,
    Role,
    TlsClients,
    TlsProfile,
    Transcode,
    Uids,
)

__all__ = [
    "CREDENTIAL",
    "RECORD_FIELDS",
    "Access",
    "Asking",
    "Audit",
    "AuditPatient",
    "AuditTransport",
    "BatcherKind",
    "BlobKind",
    "Blobs",
    "Broker",
    "CalledAE",
    "Caller",
    "CarrierName",
    "Cluster",
    "ClusterPart",
    "Commitment",
    "Config",
    "Database",
    "Dates",
    "Dct",
    "Deidentify",
    "Descriptors",
    "Destination",
    "Device",
    "Engine",
    "Finding",
    "Http",
    "Keys",
    "Label",
    "Log",
    "LogFormat",
    "LogLevel",
    "Match",
    "Networks",
    "Node",
    "OnContent",
    "OnError",
    "OnFinding",
    "OnUnprotectable",
    "Plain",
    "Profile",
    "Promise",
    "Query",
    "QueryPeer",
    "ReportPolicy",
    "Requester",
    "Retain",
    "Retrieve",
    "RetrieveLevel",
    "RetryPolicy",
    "Role",
    "Route",
    "Section",
    "SegmenterRule",
    "Storage",
    "Tls",
    "TlsClients",
    "TlsProfile",
    "Transcode",
    "Uids",
    "Watermark",
    "Workers",
    "Workstation",
    "json_schema",
    "load",
    "load_any",
    "load_workstation",
    "parse",
    "parse_workstation",
    "record_tag",
]
