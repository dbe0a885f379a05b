"""The package as a step of somebody else's project: installed from a wheel, or copied as `dlt init` does."""

from __future__ import annotations

import importlib.metadata
import shutil
from pathlib import Path

import pytest

from leadboxer_source.sandbox import Sandbox
from tests.outside import (
    PIPELINES,
    ROOT,
    assert_equal_to_truth,
    build_wheel,
    duckdb_rows_in,
    environment,
    make_venv,
    orchestrator,
    run,
    world,
)

pytestmark = pytest.mark.orchestrators

STEP = """\
import dlt
from leadboxer_source import leadboxer_source

pipeline = dlt.pipeline("elt", destination="duckdb", dataset_name="leadboxer_data")
pipeline.run(leadboxer_source())
"""


def test_five_lines_in_another_project_load_with_the_installed_wheel(tmp_path: Path) -> None:
    dataset, project = world(1), tmp_path / "project"
    project.mkdir()
    python = make_venv(tmp_path / "python") / "bin" / "python"
    with Sandbox(dataset, rate_limit=None) as server:
        env = environment(tmp_path, server, dataset.site, DLT_DATA_DIR=str(tmp_path / "dlt"))
        run([python, "-m", "pip", "install", "--quiet", f"{build_wheel(tmp_path)}[duckdb]"], env, tmp_path)
        (project / "load.py").write_text(STEP)
        run([python, "load.py"], env, project)
        assert_equal_to_truth(duckdb_rows_in(python, project / "elt.duckdb"), dataset)
        installed = run([python, "-c", "import leadboxer_source; print(leadboxer_source.__file__)"], env, project)
        assert installed.startswith(str(tmp_path / "python"))
        assert "extra" in run([python.with_name("leadboxer"), "sandbox"], env, project, may_fail=True)


def test_a_copy_made_by_dlt_init_loads(tmp_path: Path) -> None:
    dataset, project = world(1), tmp_path / "project"
    project.mkdir()
    offer = tmp_path / "verified" / "sources"
    shutil.copytree(ROOT / "leadboxer_source", offer / "leadboxer_source", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PIPELINES / "leadboxer_to_duckdb.py", offer / "leadboxer_source_pipeline.py")
    needed = importlib.metadata.requires("leadboxer-source") or []
    requirements = [requirement for requirement in needed if "extra ==" not in requirement]
    (offer / "leadboxer_source" / "requirements.txt").write_text("\n".join(requirements))
    python = make_venv(tmp_path / "python") / "bin" / "python"
    with Sandbox(dataset, rate_limit=None) as server:
        env = environment(tmp_path, server, dataset.site, DLT_DATA_DIR=str(tmp_path / "dlt"))
        git = ["git", "-c", "user.name=test", "-c", "user.email=test@localhost"]
        for arguments in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "Offer the source"]):
            run([*git, *arguments], env, offer.parent)
        dlt = [orchestrator("dlt"), "--non-interactive", "init", "leadboxer_source", "duckdb"]
        run([*dlt, "--location", str(offer.parent)], env, project)
        run([python, "-m", "pip", "install", "--quiet", "-r", "requirements.txt", "pyarrow"], env, project)
        run([python, "leadboxer_source_pipeline.py"], env, project)
        assert_equal_to_truth(duckdb_rows_in(python, project / "leadboxer.duckdb"), dataset)
