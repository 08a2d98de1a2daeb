"""The built-in backends, each a plugin; and what a plugin needs to bring another."""

from ..hookspecs import Availability, Backend, Transcriber

__all__ = ["Availability", "Backend", "Transcriber"]
