"""Twemproxy's own words: the nutcracker.yml it reads and the flags it takes, each declared in one table.

    keys ──► kinds      what may stand in the file: name, default, rule, help
      └────► file       a text becomes a NutcrackerFile (model), or one error that lists all of its problems
    flags               what may stand on the command line
    reference           the page and the help lines, written from both tables

Pure but for `load`, which reads one file: no clock, process, network or environment. Nothing is resolved here; a
server's host may be a name. Called by the command that stands in for nutcracker, and by what imports its file.
"""

from shoal.nutcracker.file import load, parse
from shoal.nutcracker.model import Listen, NutcrackerFile, Pool, Server

__all__ = ["Listen", "NutcrackerFile", "Pool", "Server", "load", "parse"]
