"""What a browser shows: the report of a verification, and the status of a node.

Every page is one file that asks nobody for anything: its style, its pictures and its policy are inside. What
comes from a header is escaped by the templates, and names no file.
"""
