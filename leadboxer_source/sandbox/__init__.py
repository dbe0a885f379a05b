"""A LeadBoxer on this machine, for trying things out and for tests. Needs the extra `sandbox`."""

from leadboxer_source.sandbox.faults import Faults
from leadboxer_source.sandbox.profile import Profile
from leadboxer_source.sandbox.server import KEY, Request, Sandbox
from leadboxer_source.sandbox.world import Truth, World

__all__ = ["KEY", "Faults", "Profile", "Request", "Sandbox", "Truth", "World"]
