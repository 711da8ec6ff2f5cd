"""Rings across machines: Celery on RabbitMQ. Needed only where `cluster.broker` is configured.

Rules that bind here:
1. The ledger is the truth. A message says where to look, and nothing that is not in the ledger: lost it costs
   at most the poll interval, doubled an empty look.
2. Nobody who receives, works or sends waits for the broker. What cannot be rung is dropped, and counted.
3. Nothing waits in the broker for its time: retries of days lie in the ledger. Queues are bounded.

    application  the Celery application: queues, tasks, what is sent and how
    doorbells    where those who rest inside a process are woken
    ringer       sends messages, from a thread of its own
    hearer       a Celery worker in a thread, which turns messages into rings of doorbells
    carillon     the four together, in place of `dicom_node.bells`
"""
