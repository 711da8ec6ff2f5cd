"""Where the bytes of every object are: one folder of this machine, or a store that several machines share.

    port        what the node asks of any of them; `dicom_node.spool.Spool` is the one for a single machine
    bench       where an object is written, on this machine, before a shared store has it
    shared      what holds for every shared store: who may remove what, and whose store it is
    directory   a folder of a network file system
    cache       objects of a remote store that are on this machine too
    asking      requests to S3: time limits, tries, and what their errors mean
    s3          a bucket

What a shared store promises is what the spool promises (`spool`, rules 1 to 3). How it keeps rule 3,
while one machine removes and others put, is in `shared` and in docs/adr/0035.
"""
