"""The source, under the name that dlt's references have."""

from leadboxer_source.source import leadboxer_source as leadboxer

__all__ = ["leadboxer"]
