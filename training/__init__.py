"""How the packaged networks are made: `python -m training train|evaluate|export --data DIR`.

    photos -> samples -> recipe (topology, schedule) -> fitting -> quantised -> scores -> weights, card

Not part of the installed package. Reads the layouts of HRF, DRIVE, STARE and CHASE_DB1.
"""
