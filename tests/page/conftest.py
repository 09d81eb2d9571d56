"""A headless Chromium, and a served index to look at."""

import os
import shutil
import threading
import time

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("faiss")
pytest.importorskip("playwright.sync_api")

import uvicorn
from playwright import sync_api

from simcse.index.sqlite import SqliteIndex
from simcse.io.rows import IndexRow
from simcse.model.fingerprint import model_fingerprint
from simcse.model.settings import ModelSettings
from simcse.serve.app import create_app
from simcse.serve.settings import ServeConfig

SCRIPT = "<script>document.title='broken'</script><img src=x onerror=alert(1)> a dog"
TEXTS = ["A man plays the guitar.", "The dog runs.", "The cat eats.", SCRIPT]
NAMES = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def chromium():
    program = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"needs a Chromium: none of {', '.join(NAMES)} is installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def url(make_encoder, tmp_path_factory):
    """Where a tiny model and an index of hostile and friendly rows are served."""
    encoder = make_encoder(ModelSettings(pooling="mean", max_length=128, normalize=True))
    folder = tmp_path_factory.mktemp("page")
    index = SqliteIndex.create(folder / "index", model_fingerprint(encoder, "tiny"))
    more = [f"sentence number {at} of the dog" for at in range(40)]
    rows = [
        IndexRow(str(at), text, {"lang": "de" if at % 2 else "en", "n": at})
        for at, text in enumerate(TEXTS + more)
    ]
    index.add(rows, encoder.encode(TEXTS + more))
    index.commit()
    (folder / "results.json").write_text(
        '{"models": [{"model": "/secret/<b>one</b>",'
        ' "geometry": {"alignment": 0.2, "uniformity": -2.5}},'
        ' {"model": "two", "geometry": {"alignment": 0.3, "uniformity": -3.1}}]}'
    )
    app = create_app(encoder, index, ServeConfig(), name="tiny", results=[folder])
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()
