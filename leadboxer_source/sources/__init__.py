"""Where dlt looks for sources of a plug-in: `SourceReference.from_reference("leadboxer")` finds `leadboxer.py` here."""
