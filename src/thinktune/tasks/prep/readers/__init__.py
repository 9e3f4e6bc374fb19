"""Rows out of files of every kind that people bring, one dict a row, with its place.

Called by `sources`. Nothing here knows what a row means. A row that cannot be read is a record
with a reason, never an end; a file of which nothing can be read is DataInvalid.
"""
