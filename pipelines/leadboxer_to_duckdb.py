"""Loads a LeadBoxer dataset into DuckDB: what is not loaded yet, newest first. Run it again to go on."""

import dlt

from leadboxer_source import leadboxer_source

if __name__ == "__main__":
    pipeline = dlt.pipeline("leadboxer", destination="duckdb", dataset_name="leadboxer_data")
    # site and api_key come from .dlt/secrets.toml or SOURCES__LEADBOXER__SITE and SOURCES__LEADBOXER__API_KEY
    print(pipeline.run(leadboxer_source()))
