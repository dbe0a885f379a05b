"""A dlt source that loads a LeadBoxer dataset whole: users, sessions, events and properties."""

from leadboxer_source.errors import LeadBoxerError
from leadboxer_source.report import Report
from leadboxer_source.source import leadboxer_source
from leadboxer_source.sync import SyncResult, sync

__all__ = ["LeadBoxerError", "Report", "SyncResult", "leadboxer_source", "sync"]
