"""A headless Chromium, and a served index for it."""

import asyncio
import os
import shutil
import threading

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("faiss")
pytest.importorskip("playwright.sync_api")

from playwright import sync_api

from simcse.index.sqlite import SqliteIndex
from simcse.io.rows import IndexRow
from simcse.model.fingerprint import model_fingerprint
from simcse.model.settings import ModelSettings
from simcse.serve.app import create_app
from simcse.serve.run import find_address, make_server, wait_until_listening
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
    settings = ServeConfig()
    app = create_app(encoder, index, settings, name="tiny", results=[folder])
    address = find_address("127.0.0.1", 0)
    server = make_server(app, settings, address)
    loop, started = asyncio.new_event_loop(), threading.Event()

    async def run():
        serving = asyncio.ensure_future(server.serve())
        await wait_until_listening(address, serving)
        started.set()
        await serving

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()))
    thread.start()
    assert started.wait(600)
    yield f"http://{address[0]}:{address[1]}"
    loop.call_soon_threadsafe(server.stop)
    thread.join(600)
    loop.close()
