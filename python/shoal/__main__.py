"""`python -m shoal`: the same as the `shoal` command, for the processes that start each other."""

from shoal.cli import main

main()
