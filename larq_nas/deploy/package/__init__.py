"""Packages to deploy: flatbuffer, card, programs and plain source."""

from larq_nas.deploy.package.facts import Accuracy
from larq_nas.deploy.package.package import write_package
from larq_nas.deploy.package.standalone import network_source, standalone

__all__ = ["Accuracy", "network_source", "standalone", "write_package"]
