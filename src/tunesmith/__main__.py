"""`python -m tunesmith`: the command line without its script."""

from tunesmith.cli.main import main

main()
