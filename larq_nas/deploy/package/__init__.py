"""Packages to deploy: flatbuffer, card, programs and plain source."""

from larq_nas.deploy.package.facts import Accuracy
from larq_nas.deploy.package.package import write_package
from larq_nas.deploy.package.standalone import standalone

__all__ = ["Accuracy", "standalone", "write_package"]
