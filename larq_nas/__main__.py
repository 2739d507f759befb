"""Run the command line by `python -m larq_nas`."""

from larq_nas.cli import main

main(prog_name="larq-nas")
