"""`python -m larq_nas.cli`: the same as `larq-nas`."""

from larq_nas.cli import main

main(prog_name="larq-nas")
