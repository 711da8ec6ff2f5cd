"""From a record to the shards that tiles carry, and back.

packets    shards, evaluation points, packet bytes
erasure    Reed-Solomon over GF(2^16)
record     a record <-> few bytes; pixel, UID and cell digests
model      the byte model and entropy coder that make them few
crypto     every use of a site key

packets -> erasure | record -> model | crypto
"""
