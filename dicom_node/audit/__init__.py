"""The audit trail: what an auditor of the hospital is told, as IHE ATNA wants it (ITI-20, PS3.15 A.5 to A.7).

    ledger, refusals, commands -> events -> XML -> syslog message -> spool on disk -> audit repository

Rules that bind here:
1. What the node does to images is read from the ledger, which has it on disk already: telling it slows
   nobody, and a kill at any moment loses none of it. What the ledger does not know (refusals, starts,
   commands) is on disk when `Auditor.tell` returns.
2. The audit trail never holds up an image. A trail that cannot be written is an alarm; what stands in the
   ledger waits there, what else is lost is counted, and the next message says so.
3. Messages go out in the order in which they were written, each at least once, and stay until the repository
   has had time to take them.
4. A patient is named only if the configuration says so (`audit.patient`); a name or a birth date never.

    codes      the coded terms of PS3.16 that are used here
    events     what can be told, one frozen class for each
    message    an event -> XML (PS3.15 A.5.1)
    syslog     XML -> message of RFC 5424, and its frame of RFC 5425
    grouping   what is alike -> one event
    history    steps of the ledger -> events
    subjects   which study and patient an object belongs to
    store      messages on disk, in order
    auditor    `tell`: event -> store
    clerk      ledger -> events -> store, continuously
    repository the connection to whom it is told
    courier    store -> repository, continuously
    trail      all of it, as a service runs it, and as a command does
"""

from __future__ import annotations
